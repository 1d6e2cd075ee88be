"""Two models decoding: headwater against the published loop, against `generate`, and drafted against one by one.

    python benchmarks/decoding.py                       # all of it, three rounds
    python benchmarks/decoding.py --batch 1 --rounds 5

Every figure is new tokens a second as a ratio to a baseline of the same round: minimum, median and maximum of the
rounds, whose variants run in turn (a warm-up round is not counted), so that what else the machine does strikes all of
them. The models are Qwen2 with random weights (25 M parameters and a vocabulary of 8,192), prompts have 134 tokens, 96
(`--tokens`) are decoded, by sampling. The policy is the reference with noise on its weights, scaled by `--apart`; or,
with `--early 8`, the reference but for its first 8 tokens, whose logits are others: all of the KL lies there, and the
drafts are refused there. The share of drafts taken is printed.

    published           both models read the whole text for every token, one row at a time (arXiv:2505.17122's code)
    generate            transformers' own, one model
    one model           headwater's loop, the reference alone
    length control      the policy says 20 tokens, the reference the rest
    both                KL threshold, both models asked for every token
    drafted             the same, the reference up to `--draft` (64) tokens ahead
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from headwater.config import build
from headwater.decoding.loop import Loop, decode_requests
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import STRATEGIES

VOCAB, PROMPT, FIRST = 8192, 134, 20
THRESHOLD = 0.5
PUBLISHED_ROWS = 1
"""Rows of the published loop, which takes them one at a time: its tokens a second do not depend on how many."""


def model_of(seed: int) -> Any:
    """Return a Qwen2 of 25 M parameters, its embeddings aside."""
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


class Early(transformers.Qwen2ForCausalLM):  # type: ignore[misc]
    """A policy that is its reference but for the first tokens of a response to a prompt of `PROMPT` tokens."""

    first, bias = 0, torch.zeros(VOCAB)

    def forward(self, input_ids: Any, position_ids: Any = None, logits_to_keep: int = 0, **others: Any) -> Any:
        """Add the bias to the logits from which the first tokens are drawn."""
        found = super().forward(input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **others)
        places = position_ids[:, -found.logits.shape[1] :] - (PROMPT - 1)
        found.logits[(places >= 0) & (places < self.first)] += self.bias
        return found


def early(model: Any, first: int) -> Any:
    """Return a policy with the reference's weights and other logits at its `first` tokens."""
    policy = Early(model.config).eval()
    policy.load_state_dict(model.state_dict())
    policy.first, policy.bias = first, 2 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(1))
    return policy


def nudged(model: Any, by: float) -> Any:
    """Return a policy: the reference with relative noise on its weights."""
    policy = model_of(0)
    torch.manual_seed(1)
    for own, other in zip(policy.parameters(), model.parameters(), strict=True):
        own.data = other.data * (1 + by * torch.randn_like(other))
    return policy


@torch.inference_mode()
def published(policy: Any, reference: Any, prompts: list[list[int]], tokens: int) -> int:
    """Decode as the published script does: no cache, both models on the whole text, one row at a time."""
    for prompt in prompts[:PUBLISHED_ROWS]:
        ids = torch.tensor([prompt])
        for _ in range(tokens):
            p, r = (model(ids, use_cache=False).logits[:, -1].softmax(-1) for model in (policy, reference))
            kl = (p * ((p + 1e-12).log() - (r + 1e-12).log())).sum()
            ids = torch.cat([ids, torch.multinomial(p if kl > THRESHOLD else r, 1)], dim=1)
    return tokens * len(prompts[:PUBLISHED_ROWS])


@torch.inference_mode()
def generated(model: Any, prompts: list[list[int]], tokens: int) -> int:
    """Decode with transformers."""
    settings = transformers.GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None
    )
    ids = torch.tensor(prompts)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return int(found.shape[1] - PROMPT) * len(prompts)


def looped(
    policy: Any, reference: Any, strategy: str, prompts: list[list[int]], draft: int, tokens: int
) -> tuple[int, Loop]:
    """Decode with headwater; no token ends a response."""
    options = DecodingOptions(max_new_tokens=tokens, batch_size=len(prompts), draft=draft)
    loop = Loop(policy, reference, build(strategy, STRATEGIES, "strategy"), options, [], seed=0)
    keys = [str(place) for place in range(len(prompts))]
    return sum(len(one.tokens) for one in loop.run(decode_requests(keys, prompts, 1))), loop


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--draft", type=int, default=DecodingOptions.draft)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--leave-out", nargs="*", default=[], help="variants, by name")
    parser.add_argument("--apart", type=float, default=0.02)
    parser.add_argument("--early", type=int, help="tokens at which alone the policy differs")
    given = parser.parse_args()
    reference = model_of(0)
    policy = nudged(reference, given.apart) if given.early is None else early(reference, given.early)
    threads = torch.get_num_threads()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, {threads} threads"
    )
    for batch in given.batch:
        measure(policy, reference, batch, given)


def measure(policy: Any, reference: Any, batch: int, given: argparse.Namespace) -> None:
    """Run all variants in turn, and print their ratios."""
    tokens, rounds = given.tokens, given.rounds
    prompts = np.random.default_rng(0).integers(5, VOCAB, (batch, PROMPT)).tolist()
    kl = f"kl_threshold(threshold={THRESHOLD})"
    shares = []

    def drafted() -> int:
        said, loop = looped(policy, reference, kl, prompts, given.draft, tokens)
        shares.append(loop.taken / loop.drafted)
        return said

    variants: dict[str, Callable[[], int]] = {
        "published": lambda: published(policy, reference, prompts, tokens),
        "generate": lambda: generated(reference, prompts, tokens),
        "one model": lambda: looped(policy, reference, "reference", prompts, 1, tokens)[0],
        "length control": lambda: looped(policy, reference, f"length_control(first={FIRST})", prompts, 1, tokens)[0],
        "both": lambda: looped(policy, reference, kl, prompts, 1, tokens)[0],
        "drafted": drafted,
    }
    speeds: dict[str, list[float]] = {name: [] for name in variants if name not in given.leave_out}
    for _ in range(rounds + 1):
        for name in speeds:
            began = time.perf_counter()
            said = variants[name]()
            speeds[name].append(said / (time.perf_counter() - began))
    speeds = {name: found[1:] for name, found in speeds.items()}
    taken = f", {shares[-1]:.1%} of drafts taken" if shares else ""
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"\nbatch {batch}, {tokens} tokens, {rounds} rounds{taken}, {load}")
    for name, found in speeds.items():
        ratios = ((base, [a / b for a, b in zip(found, speeds[base], strict=True)])
                  for base in ("published", "generate", "one model") if base in speeds)  # fmt: skip
        cells = "   ".join(f"{_spread(each, 2):22} × {base}" for base, each in ratios)
        print(f"{name:15} {_spread(found, 0):>16} tokens/s   {cells}")


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}–{high})"


if __name__ == "__main__":
    main()
