"""Options of decoding: sampling and servers; starts without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwater.errors import UsageError
from headwater.network.endpoint import Endpoint


@dataclass(frozen=True)
class DecodingOptions:
    """Sampling options. A model's own generation settings are ignored."""

    n: int = 1
    """Number of independent responses a prompt."""
    temperature: float = 1.0
    """Divides the logits; 0 selects the most likely token."""
    top_k: int | None = None
    """Draw from this many of the most likely tokens."""
    top_p: float = 1.0
    """Draw from the most likely tokens that together have this probability."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the most likely token's probability."""
    max_new_tokens: int = 256
    """Maximum number of tokens; a response that reaches it is marked as incomplete."""
    batch_size: int = 8
    """Number of responses decoded at a time; a response that ends is replaced by the next. Does not change results."""
    draft: int = 64
    """Maximum number of tokens that the reference drafts before the policy checks them; 1 calls both models for every
    token. The number falls where the policy often disagrees. Does not change results.
    """

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
class ServerOptions:
    """Server options: OpenAI-compatible servers in place of local models, for length control."""

    endpoint: str | None = None
    """Address of a server in place of a local policy, such as http://localhost:8000/v1. --model and --reference are
    then the model names of the servers; the key is read from OPENAI_API_KEY. For length control.
    """
    reference_endpoint: str | None = None
    """Address of the reference's server. Default: --endpoint."""
    tokenizer: str | None = None
    """With --endpoint: tokenizer of both models, for the chat template; a Hugging Face name or path."""
    carry: Literal["text", "ids"] | None = None
    """With --endpoint: send prompt and first tokens as text (works with any server; tokens where the two parts meet may
    be split differently), or as token ids (exact; needs a server that returns them, such as vLLM). Default:
    text."""
    concurrency: int | None = None
    """With --endpoint: number of requests at a time. Default: 8."""

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
            raise UsageError("--endpoint", "a server does not return its chat template", "name --tokenizer, too")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"--concurrency {self.concurrency}", "expected 1 or more")

    def check(self, reference: str | None, draws: int, draft: int, release_policy: bool) -> None:
        """Refuse options of decoding that servers, or models in memory one at a time, cannot serve.

        Errors: `UsageError`.
        """
        flag = "--endpoint" if self.endpoint else "--release-policy" if release_policy else None
        if flag and draws:
            raise UsageError("--draws", f"needs both models at once, which {flag} has not", "leave one out")
        if self.endpoint and release_policy:
            raise UsageError("--release-policy", "has no effect with --endpoint", "leave it out")
        if self.endpoint and reference is None:
            raise UsageError("--endpoint", "does not know a reference", "name --reference as its server knows it")
        if self.endpoint and draft != DecodingOptions.draft:
            raise UsageError("--draft", "has no effect with --endpoint", "leave it out")
