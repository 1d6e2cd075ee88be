"""How tokens are drawn once a strategy has said who speaks, and by whom; starts without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwater.errors import UsageError
from headwater.network.endpoint import Endpoint


@dataclass(frozen=True)
class DecodingOptions:
    """How responses are decoded; nothing but this decides: a model's own generation settings do not count."""

    n: int = 1
    """Responses a prompt; independent draws."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int | None = None
    """Draw from so many of the most likely tokens."""
    top_p: float = 1.0
    """Draw from the most likely tokens that make up so much probability."""
    min_p: float = 0.0
    """Draw from tokens at least so likely, as a share of the most likely one's probability."""
    max_new_tokens: int = 256
    """Tokens after which a response is cut off; it is then marked as incomplete."""
    batch_size: int = 8
    """Responses at a time; what is decoded does not depend on it. One that ends makes room for the next."""
    draft: int = 64
    """Tokens that the reference says ahead, at most, before the policy checks them; fewer where it often disagrees.
    What is decoded does not depend on it; 1 asks both for every token."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work or have no effect. Errors: `UsageError`."""
        for flag, value, fits, expected in (
            ("--n", self.n, self.n >= 1, "1 or more"),
            ("--temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 or more"),
            ("--top-k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more"),
            ("--top-p", self.top_p, 0 < self.top_p <= 1, "above 0 and up to 1"),
            ("--min-p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1"),
            ("--max-new-tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more"),
            ("--batch-size", self.batch_size, self.batch_size >= 1, "1 or more"),
            ("--draft", self.draft, self.draft >= 1, "1 or more"),
        ):
            if not fits:
                raise UsageError(f"{flag} {value}", f"expected {expected}")
        if self.temperature == 0 and (self.n > 1 or self.top_k or self.top_p < 1 or self.min_p):
            raise UsageError("--temperature 0", "takes the most likely token", "leave out --n and the filters")


@dataclass(frozen=True)
class Servers:
    """OpenAI-compatible completion servers in place of local models, for length control."""

    endpoint: str | None = None
    """Ask a server instead of a local policy, such as http://localhost:8000/v1; --model and --reference are then the
    names that the servers know, and the key is read from OPENAI_API_KEY. For length control."""
    reference_endpoint: str | None = None
    """The reference's server. [--endpoint]"""
    tokenizer: str | None = None
    """With --endpoint: the tokenizer of both models, for the chat template; a Hugging Face name or path."""
    carry: Literal["text", "ids"] | None = None
    """With --endpoint: how prompt and first tokens go to the servers, as text (any server; the tokens at the seam may
    be joined otherwise), or exactly, as token ids, to servers that give them back (vLLM). [text]"""
    concurrency: int | None = None
    """With --endpoint: requests at a time. [8]"""

    def __post_init__(self) -> None:
        """Refuse values that cannot work or have no effect. Errors: `UsageError`."""
        if self.endpoint is None:
            for name in ("reference_endpoint", "tokenizer", "carry", "concurrency"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name.replace('_', '-')}", "has no effect without --endpoint", "leave it out")
            return
        for address in (self.endpoint, self.reference_endpoint):
            if address is not None:
                Endpoint(address)
        if self.tokenizer is None:
            raise UsageError("--endpoint", "a server does not tell its chat template", "name --tokenizer, too")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"--concurrency {self.concurrency}", "expected 1 or more")
