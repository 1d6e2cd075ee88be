"""A whole frontier on a real tiny model: stories260K as the reference, a policy that headwater fine-tunes from it.

    python benchmarks/stories_frontier.py DATA OUTPUT [--prompts 60] [--tokens 64]

DATA holds stories260K (karpathy/tinyllamas, MIT). Beginnings of stories are gone on with eight times by the model
itself (`headwater sample`); of each, the responses with most and fewest happy words make a pair (`select`), a reward
model and a DPO policy are trained on those pairs, and one `headwater frontier` compares the decoding strategies on
other beginnings. Every step is a command as a user types it; what it prints is what is quoted.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Candidates, Message, Preference, Response
from tests.decoding import stories

WHO = ("a boy", "a girl", "a cat", "a dog", "a bird", "a bear", "a frog", "a mouse", "a bunny", "a fish")
NAMES = ("Tim", "Lily", "Tom", "Sue", "Max", "Mia", "Ben", "Anna", "Sam", "Jane", "Bob", "Amy")
HAPPY = re.compile(r"\b(happy|smil\w*|laugh\w*|fun|lov\w*|play\w*|friend\w*|hug\w*)\b")


def beginnings() -> Iterator[str]:
    """Yield beginnings of stories, those of one name far apart."""
    for who, name in itertools.product(WHO, NAMES):
        yield f"Once upon a time, there was {who} named {name}. One day, {name}"


def headwater(*arguments: object) -> None:
    """Run a command; it has to succeed."""
    assert cli.main([str(argument) for argument in arguments]) == 0, arguments


def labelled(path: Path) -> Iterator[Candidates]:
    """Yield what was drawn with the number of happy words as the score."""
    for row in reading.stream(path):
        assert isinstance(row, Candidates)
        scores = (float(len(HAPPY.findall(response.text.lower()))) for response in row.responses)
        found = (dataclasses.replace(each, score=score) for each, score in zip(row.responses, scores, strict=True))
        yield dataclasses.replace(row, responses=tuple(found))


def main() -> None:
    """Prepare, train, and draw the frontier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--prompts", type=int, default=60, help="for training, and as many others for the frontier")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    out: Path = given.output
    base = stories.save(given.data / "stories260K", out / "stories")
    asked = list(beginnings())
    for name, part in (("train", asked[0::2][: given.prompts]), ("held-out", asked[1::2][: given.prompts])):
        sides = {"chosen": Response("."), "rejected": Response("!")}  # only the prompts are used
        rows = (Preference(prompt=(Message("user", text),), **sides, id=text, source=name) for text in part)
        reading.write(out / f"{name}.jsonl", rows)
    draw = ("--n", 8, "--max-new-tokens", given.tokens)
    headwater("sample", "--input", out / "train.jsonl", "--output", out / "drawn.jsonl", "--model", base, *draw)
    reading.write(out / "labelled.jsonl", labelled(out / "drawn.jsonl"))
    pairs = ("--pairs", "best_worst", "--budget", "100%")
    headwater("select", "--input", out / "labelled.jsonl", "--output", out / "pairs.jsonl", *pairs)
    learn = ("--data", out / "pairs.jsonl", "--model", base, "--precision", "fp32", "--per-device-train-batch-size", 8)
    headwater("train-reward", *learn, "--output", out / "reward", "--learning-rate", 1e-3, "--num-train-epochs", 6)
    headwater("train-dpo", *learn, "--output", out / "dpo", "--learning-rate", 2e-4, "--num-train-epochs", 2)
    where = ("--input", out / "held-out.jsonl", "--output", out / "frontier", "--reward-model", out / "reward")
    headwater("frontier", "--model", out / "dpo", *where, "--max-new-tokens", given.tokens, "--n", 2)
    headwater("report", out / "frontier" / "summary", "--output", out / "report.html")


if __name__ == "__main__":
    main()
