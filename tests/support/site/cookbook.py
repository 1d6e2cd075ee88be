"""The data cookbook of the site: rows of every layout, and the lines that read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headwater.data.layouts import LAYOUTS
from tests.data.layout_examples import EXAMPLES

Fields = dict[str, Any]
TEXTS = (
    {"Why?": "Why is the sky blue?", "Because.": "Air scatters blue light most.", "No.": "It just is."},
    {"Why?": "How many legs has a crab?", "Because.": "Ten, with the claws.", "No.": "Eight."}
    | {"t1": "t2", "m1": "m4", "m2": "m5", "m3": "m6"},
)
"""What the texts of the tests' rows become in the first and in the second row."""
_REPLY = {"parent_id": "m1", "role": "assistant"}
NEXT: dict[str, tuple[Fields, ...]] = {
    "helpsteer-ratings": ({"response": "No.", "helpfulness": 1, "correctness": 0},),
    "rated-responses": ({"response": "No.", "score": 1.5},),
    "oasst": (
        _REPLY | {"message_id": "m2", "text": "Because.", "rank": 0},
        _REPLY | {"message_id": "m3", "text": "No.", "rank": 1},
    ),
}
"""Changes from the first row to the next ones where rows belong together: other responses to the same prompt."""
USES = {
    "preferences": "headwater train-dpo rows.jsonl --output runs/dpo",
    "candidates": "headwater select rows.jsonl --budget 100% --pairs best_worst --output pairs.jsonl",
    "labelled": 'headwater train-dpo rows.jsonl --loss "kto()" --output runs/kto',
    "demonstrations": "headwater train-sft rows.jsonl --output runs/sft",
}
"""What rows are for, by what they hold."""
HEADINGS = {
    "preferences": "Pairs",
    "candidates": "Several responses with scores",
    "labelled": "One response and a label",
    "demonstrations": "Demonstrations",
}
INTRODUCTIONS = {
    "preferences": "One response is better, by its column or by a verdict; for trainings, `signal` and `evaluate`.",
    "candidates": "`select` makes pairs of them; trainings read them as pairs of the best and the worst.",
    "labelled": "For `train-dpo` with the loss `kto`, and for `evaluate`, which reports AUC.",
    "demonstrations": "For `train-sft`.",
}


def text() -> str:
    """Return the recipes of all layouts as Markdown."""
    return "\n".join(line for kind in HEADINGS for line in _chapter(kind))


def kind_of(name: str) -> str:
    """Return what the rows of a layout hold: preferences, candidates, labelled or demonstrations."""
    yields = LAYOUTS[name].yields
    if yields != "unpaired":
        return yields
    return "labelled" if {"label", "kto_tag", "is_safe"} & set(LAYOUTS[name].columns) else "demonstrations"


def rows_of(name: str) -> list[Fields]:
    """Return rows of a layout, with questions and answers in place of the short texts of the tests."""
    examples = EXAMPLES[name]
    first = examples[0].good
    if name in NEXT:
        return [_told(first | changes, TEXTS[0]) for changes in ({}, *NEXT[name])]
    return [_told(first, TEXTS[0]), _told(examples[min(1, len(examples) - 1)].good, TEXTS[1])]


def _chapter(kind: str) -> Iterator[str]:
    yield f"## {HEADINGS[kind]}\n\n{INTRODUCTIONS[kind]}\n"
    for name in (name for name in LAYOUTS if kind_of(name) == kind):
        yield f'### {name}\n\n```json title="rows.jsonl"'
        yield from (json.dumps(row, ensure_ascii=False) for row in rows_of(name))
        yield f"```\n\n```sh\nheadwater inspect rows.jsonl\n{USES[kind]}\n```\n"


def _told(value: Any, texts: dict[str, str]) -> Any:
    """Return a value in which the short texts of the tests are replaced, without the keys that mean nothing."""
    if isinstance(value, dict):
        return {key: _told(one, texts) for key, one in value.items() if (key, one) != ("weight", 1)}
    if isinstance(value, list):
        return [_told(one, texts) for one in value]
    if value in ("Wh", "y?"):  # an Alpaca row: its instruction, and the input of it
        return "Answer briefly." if value == "Wh" else texts["Why?"]
    if isinstance(value, str):
        for short, long in texts.items():
            value = value.replace(short, long)
    return value
