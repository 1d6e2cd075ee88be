"""Compare the model of a GGUF file with llama.cpp on the same file: greedy tokens of ten prompts, and perplexity.

    python -m benchmarks.llama_cpp FILE.gguf TEXT.txt --tokens 512

llama.cpp multiplies quantised weights with activations that it rounds to 8 bits, headwater the same weights in float32,
so their logits differ. The first token that differs counts as a tie where headwater's two best logits are closer than
`NEAR`. With `--float32`, llama.cpp reads the same weights in float32 instead.
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
"""Difference of the two best logits below which a different token counts as a tie."""
LENGTH = 48


class Compared(NamedTuple):
    """Greedy tokens of one prompt: those of llama.cpp, how many are the same, and the gap where the first is not."""

    tokens: list[int]
    same: int
    gap: float


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
    best = logits.topk(2).values
    differs = (logits.argmax(-1) != torch.tensor(theirs)).nonzero()
    same = int(differs[0]) if len(differs) else len(theirs)
    return Compared(theirs, same, float(best[same, 0] - best[same, 1]) if same < len(theirs) else math.inf)


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
                about = f"gap {found.gap:.3f}" if found.same < len(found.tokens) else "all the same"
                print(f"{found.same:3} of {len(found.tokens):3}  {about:14} {prompt!r}")
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
