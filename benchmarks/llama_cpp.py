"""Compare the model of a GGUF file with llama.cpp on the same file: greedy tokens of ten prompts, and perplexity.

    python -m benchmarks.llama_cpp FILE.gguf TEXT.txt --tokens 512

llama.cpp multiplies quantised weights with activations that it rounds to 8 bits, headwater multiplies in float32, so
their logits differ. Headwater reads llama.cpp's own tokens; where its best next token is another, both logits are
compared: closer than `NEAR`, they count as a tie. With `--float32`, llama.cpp reads the weights in float32 instead.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import torch

from headwater.models import loading
from tests.support.serving import llama_server, write_gguf

PROMPTS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "What is 17 + 25?",
    "Explain photosynthesis in two sentences.",
    "List  three fruits:\n\n1.",
    "Translate to German: Good morning, my friend!",
    "Who wrote Romeo and Juliet?",
    "Give me a Python function that adds two numbers.",
    "Why is the sky blue?",
    "Tell me a joke about 3 cats and 10 dogs.",
)
NEAR = 0.5
"""Difference of two logits below which they count as a tie."""
LENGTH = 32


class Compared(NamedTuple):
    """llama.cpp's greedy tokens of one prompt, and where headwater's best token behind the same ones is another."""

    tokens: list[int]
    same: int
    """Number of tokens before the first other one."""
    gaps: list[float]
    """Difference of headwater's best logit and that of llama.cpp's token, for every other one."""


def completion(address: str, **request: Any) -> dict[str, Any]:
    """Return the answer of llama.cpp's own route, which takes and returns token ids."""
    body = json.dumps({"temperature": 0.0, "cache_prompt": True, "return_tokens": True, **request}).encode()
    place = urllib.request.Request(f"{address.removesuffix('/v1')}/completion", body)
    with urllib.request.urlopen(place, timeout=600) as answer:
        return dict(json.load(answer))


def greedy(loaded: loading.Loaded, address: str, prompt: str, length: int = LENGTH) -> Compared:
    """Compare llama.cpp's greedy tokens with headwater's best token behind each of them."""
    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    theirs = completion(address, prompt=ids, n_predict=length)["tokens"]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids + theirs])).logits[0, len(ids) - 1 : -1].float()
    chosen = logits.gather(-1, torch.tensor(theirs)[:, None])[:, 0]
    gaps = logits.max(-1).values - chosen
    others = gaps.nonzero()[:, 0].tolist()
    return Compared(theirs, others[0] if others else len(theirs), [float(gaps[place]) for place in others])


def nats(loaded: loading.Loaded, ids: list[int]) -> float:
    """Return headwater's mean negative log-likelihood of a token behind those before it."""
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids])).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))


def nats_of_llama_cpp(address: str, ids: list[int], listed: int = 8000) -> tuple[float, int]:
    """Return llama.cpp's mean, asking for the likeliest tokens behind every prefix, and how many were not among them.

    A token outside the list counts with the probability that the list leaves.
    """
    total, outside = 0.0, 0
    for place in range(1, len(ids)):
        answer = completion(address, prompt=ids[:place], n_predict=1, n_probs=listed)
        found = {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}
        if ids[place] not in found:
            outside += 1
            found[ids[place]] = math.log(max(1 - sum(map(math.exp, found.values())), 1e-12))
        total -= found[ids[place]]
    return total / (len(ids) - 1), outside


def main() -> None:
    """Print a line for every prompt, and the perplexities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--float32", action="store_true")
    given = parser.parse_args()
    loaded = loading.load(str(given.file), "policy", (), 0)
    with tempfile.TemporaryDirectory() as folder:
        served = write_gguf(given.file, Path(folder) / "float32.gguf") if given.float32 else given.file
        with llama_server(served, Path(folder) / "log") as address:
            for prompt in PROMPTS:
                found = greedy(loaded, address, prompt)
                gaps = ", ".join(f"{gap:.3f}" for gap in found.gaps) or "none"
                print(f"{len(found.tokens):3} tokens, the first {found.same:3} the same, gaps: {gaps}")
                print("    ", repr(prompt))
                print("    ", repr(loaded.tokenizer.decode(found.tokens)))
            if given.text is not None:
                ids = loaded.tokenizer(given.text.read_text("utf-8"), add_special_tokens=False)["input_ids"]
                ids = ids[: given.tokens]
                began = time.monotonic()
                ours, (theirs, outside) = nats(loaded, ids), nats_of_llama_cpp(address, ids)
                print(f"perplexity over {len(ids) - 1} tokens:")
                print(f"  headwater {math.exp(ours):.3f} ({ours:.4f} nats)")
                print(f"  llama.cpp {math.exp(theirs):.3f} ({theirs:.4f} nats, {outside} outside the list)")
                print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
