"""Conditional reward models: told in the system turn what to judge, in training as in use."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message, Prompted
from headwater.data.reading import ReadOptions
from headwater.errors import UsageError
from headwater.results import runs
from tests.support.commands import headwater

TRAIN = ["--model", "scratch(hidden=32, layers=2, vocab=400)", "--precision", "fp32", "--learning-rate", "5e-3"]
TRAIN += ["--eval-fraction", "0.3", "--per-device-train-batch-size", "16"]


def test_a_condition_is_the_system_turn_and_no_part_of_the_opening() -> None:
    question = Message("user", "Why?")
    bare = Prompted(prompt=(question,))
    told = Prompted(prompt=(question,), condition="Be kind.")
    assert bare.conversation == bare.prompt
    assert told.conversation == (Message("system", "Be kind."), question)
    both = Prompted(prompt=(Message("system", "You are Ann."), question), condition="Be kind.")
    assert both.conversation == (Message("system", "You are Ann.\n\nBe kind."), question)
    assert bare.conversation_id == told.conversation_id


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same short pairs under two aspects, of which one turns the preference round."""
    root = tmp_path_factory.mktemp("conditions")
    lines = []
    for row in generate(Corpus(pairs=130, seed=3)):
        good, bad = (f"{word} it is, number {row.id[5:]}." for word in ("sunny", "rainy"))
        for aspect in ("summer", "winter"):
            chosen, rejected = (good, bad) if aspect == "summer" else (bad, good)
            row_of = {"id": f"{row.id}{aspect}", "prompt": row.prompt[-1].content, "aspect": aspect}
            lines.append(json.dumps(row_of | {"chosen": chosen, "rejected": rejected}))
    (root / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    call = ["train-reward", "--data", root / "pairs.jsonl", *TRAIN, "--condition-column", "aspect"]
    assert headwater(*call, "--output", root / "rm") == 0
    return root


def test_evaluate_asks_as_training_asked(study: Path, tmp_path: Path) -> None:
    run = runs.load(study / "rm")
    assert run.facts["conditional"] is True
    call = ["evaluate", "--model", study / "rm", "--dataset", study / "pairs.jsonl"]
    assert headwater(*call, "--condition-column", "aspect", "--output", tmp_path / "right") == 0
    right = runs.load(tmp_path / "right")
    assert right.metrics["accuracy"]["value"] == pytest.approx(run.metrics["eval_rewards/accuracies"])
    assert right.metrics["margin_mean"]["value"] == pytest.approx(run.metrics["eval_rewards/margins"], abs=1e-5)
    # Held out are whole prompts, under both aspects.
    asked = [(row["id"][:-6], row["id"][-6:]) for row in right.records()]
    assert {prompt for prompt, aspect in asked if aspect == "summer"} == {
        p for p, aspect in asked if aspect == "winter"
    }
    # Told the same, every second row is an earlier one with its label turned round.
    told = {row["id"]: row["chosen_reward"] for row in right.records()}
    for aspect, same in (("summer", True), ("winter", False)):
        assert headwater(*call, "--condition", aspect, "--output", tmp_path / aspect) == 0
        run = runs.load(tmp_path / aspect)
        assert run.row_counts[0]["dropped"] == {"flipped_label": 130}
        off = [abs(row["chosen_reward"] - told[row["id"]]) for row in run.records()]
        assert max(off) < 1e-6 if same else min(off) > 1e-4


def test_scores_follow_the_condition_and_files_keep_it(study: Path, tmp_path: Path) -> None:
    call = ["score", "--model", study / "rm", "--input", study / "pairs.jsonl", "--condition-column", "aspect"]
    assert headwater(*call, "--output", tmp_path / "scored.jsonl") == 0
    rows = list(reading.stream(tmp_path / "scored.jsonl", ReadOptions(condition_column="condition")))
    assert {row.condition for row in rows} == {"summer", "winter"}
    assert len(rows) == 260
    again = [*call[:4], tmp_path / "scored.jsonl", "--condition-column", "condition"]
    assert headwater(*again, "--output", tmp_path / "again.jsonl") == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "scored.jsonl").read_bytes()


@pytest.mark.parametrize("command", ["evaluate", "score", "signal", "preprocess"])
def test_a_conditional_model_without_a_condition_is_an_error(
    command: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, model = study / "pairs.jsonl", study / "rm"
    calls = {
        "evaluate": ["--model", model, "--dataset", pairs],
        "score": ["--model", model, "--input", pairs],
        "signal": [pairs, "--model", model],
        "preprocess": ["--input", pairs, "--keep", "50%", "--condition-column", "nowhere"],
    }
    assert headwater(command, *calls[command], "--output", tmp_path / "out.jsonl") in (2, 3)
    error = capsys.readouterr().err
    assert ("--condition-column NAME" if command != "preprocess" else "nowhere is null") in error


def test_doors_refuse_what_cannot_be_meant() -> None:
    for bad in ({"condition": " "}, {"condition": "a", "condition_column": "b"}):
        with pytest.raises(UsageError, match="--condition"):
            ReadOptions(**bad)
    assert dataclasses.replace(ReadOptions(), condition="a").told == "a"
