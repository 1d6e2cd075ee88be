"""Demonstrations: `train-sft` learns from responses without a label as from desirable ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from tests.support.commands import headwater

SETTINGS = [
    *("--model", "scratch(hidden=32, layers=1, vocab=300)", "--precision", "fp32"),
    *("--num-train-epochs", 1, "--eval-fraction", 0.2),
]


def test_demonstrations_train_as_desirable_responses(tmp_path: Path) -> None:
    pairs = generate(Corpus(pairs=48, seed=3))
    shown, labelled = [], []
    for pair in pairs:
        prompt = [{"role": turn.role, "content": turn.content} for turn in pair.prompt]
        shown.append({"messages": [*prompt, {"role": "assistant", "content": pair.chosen.text}]})
        labelled.append({"prompt": prompt, "completion": pair.chosen.text, "label": True})
        labelled.append({"prompt": prompt, "completion": pair.rejected.text, "label": False})
    for name, rows in {"shown": shown, "labelled": labelled}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    losses = []
    for name in ("shown", "labelled"):
        given = ["--data", tmp_path / f"{name}.jsonl", "--output", tmp_path / name]
        assert headwater("train-sft", *given, *SETTINGS) == 0
        run = runs.load(tmp_path / name)
        losses.append([row["eval_loss"] for row in run.history if "eval_loss" in row])
    counts = {stage["stage"]: stage for stage in run.row_counts}
    assert counts["read, labels"]["dropped"] == {"undesirable": 48}
    assert losses[0] and losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_data_without_a_desirable_response_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Why {n}?", "completion": "So.", "label": False} for n in range(4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert headwater("train-sft", "--data", tmp_path / "a.jsonl", "--output", tmp_path / "run", *SETTINGS) == 3
    assert "every response is labelled undesirable" in capsys.readouterr().err
