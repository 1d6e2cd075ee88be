"""Answers of several turns: the last ones are compared, and the turns before them belong to the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.data.preference import Message
from headwater.data.reading import ReadOptions, stream

ASKED = Message("user", "Why?")
BEFORE = (ASKED, Message("assistant", "Do you ask?"), Message("user", "I do."))


def turns(*said: str) -> list[dict[str, str]]:
    """Turns of an assistant and a user, beginning with the assistant's."""
    return [{"role": ("assistant", "user")[n % 2], "content": text} for n, text in enumerate(said)]


def shared(*said: str) -> list[dict[str, str]]:
    return [{"from": ("gpt", "human")[n % 2], "value": text} for n, text in enumerate(said)]


def read(path: Path, *rows: dict[str, Any]) -> tuple[list[Any], dict[str, int], dict[str, int]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    row_reader = stream(path, ReadOptions(max_bad_rows="100%"))
    return list(row_reader), dict(row_reader.row_counts.dropped), dict(row_reader.quarantine.codes)


def pair(one: Any, other: Any, **names: str) -> dict[str, Any]:
    given = {"prompt": "Why?", "chosen": one, "rejected": other}
    return {names.get(name, name): value for name, value in given.items()}


LONG = (turns("Do you ask?", "I do.", "So."), turns("Do you ask?", "I do.", "No."))
SHORT = (turns("So, so."), turns("No, no."))


@pytest.mark.parametrize(
    "row",
    [
        pair(*LONG),
        pair(shared("Do you ask?", "I do.", "So."), shared("Do you ask?", "I do.", "No.")),
        pair(*LONG, prompt="question"),
        pair(*LONG, prompt="instruction"),
        pair(*LONG, prompt="question", chosen="accepted"),
        pair(*LONG, chosen="chosen_messages", rejected="rejected_messages"),
        {"messages": [{"role": "user", "content": "Why?"}], "chosen": LONG[0], "rejected": LONG[1]},
        {
            "input": {"messages": [{"role": "user", "content": "Why?"}]},
            **{"preferred_output": LONG[0], "non_preferred_output": LONG[1]},
        },
    ],
)
def test_the_last_answers_are_compared_behind_what_was_said_before(row: dict[str, Any], tmp_path: Path) -> None:
    (found,), dropped, bad = read(tmp_path / "a.jsonl", row)
    assert (found.prompt, found.chosen.text, found.rejected.text) == (BEFORE, "So.", "No.")
    assert not dropped and not bad


@pytest.mark.parametrize("rows", [[LONG, SHORT], [SHORT, LONG]])
def test_rows_of_one_and_of_several_turns_mix(rows: list[Any], tmp_path: Path) -> None:
    found, dropped, bad = read(tmp_path / "a.jsonl", *(pair(*row) for row in rows))
    assert {record.prompt for record in found} == {(ASKED,), BEFORE} and not dropped and not bad


def test_answers_behind_different_turns_are_answers_to_different_prompts(tmp_path: Path) -> None:
    other = turns("Who asks?", "I do.", "No.")
    found, dropped, bad = read(tmp_path / "a.jsonl", pair(*SHORT), pair(LONG[0], other), pair(LONG[0], "No."))
    assert len(found) == 1 and dropped == {"prompts_differ": 2} and not bad


@pytest.mark.parametrize(
    "odd", [turns("So.", "Why?"), [*turns("So."), *turns("So.")], [{"role": "user", "content": "Hm?"}, *turns("So.")]]
)
def test_what_is_no_continuation_is_bad(odd: list[Any], tmp_path: Path) -> None:
    found, dropped, bad = read(tmp_path / "a.jsonl", pair(*SHORT), pair(odd, odd[:-1]))
    assert len(found) == 1 and not dropped and bad == {"ROLE": 1}


@pytest.mark.parametrize("label", [{}, {"label": True}])
def test_a_single_response_of_several_turns_is_its_last(label: dict[str, Any], tmp_path: Path) -> None:
    (found,), *_ = read(tmp_path / "a.jsonl", {"prompt": "Why?", "completion": LONG[0], **label})
    assert (found.prompt, found.response.text) == (BEFORE, "So.")
