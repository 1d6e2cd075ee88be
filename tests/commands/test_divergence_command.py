from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from tests.support.commands import headwater

QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.5"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("divergence")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=60, seed=2)))
    model = ["--model", "scratch(hidden=32, layers=1, vocab=400)"]
    assert headwater("train-dpo", "--data", root / "pairs.jsonl", "--output", root / "dpo", *model, *QUICK) == 0
    return root / "dpo"


def rows(path: Path, what: str) -> list[dict[str, Any]]:
    return [row for row in json.loads((path / "divergence.json").read_text()) if row["what"] == what]


def test_along_texts_exact_and_drawn_agree(policy: Path, tmp_path: Path) -> None:
    pairs = policy.parent / "pairs.jsonl"
    output = tmp_path / "run"
    assert headwater("divergence", "--model", policy, "--dataset", pairs, "--output", output, "--draws", 200) == 0
    exact, drawn = rows(output, "kl_a_response")
    assert exact["estimator"] == "exact" and drawn["estimator"] == "Monte-Carlo, 200 draws"
    assert exact["n"] == 120  # both responses of every pair
    assert 0 < exact["low"] < exact["value"] < exact["high"]
    assert drawn["value"] == pytest.approx(exact["value"], rel=0.2)
    assert runs.load(output).metrics["kl_a_response"]["value"] == exact["value"]
    ratios = rows(output, "log_ratio_a_token")
    assert {row["responses"] for row in ratios} == {"chosen", "rejected"}
    first = {row["responses"]: row["value"] for row in ratios if row["first"] == 1}
    records = {row["n"] for row in ratios if row["first"] == 1}
    assert records == {60} and first["chosen"] != first["rejected"]


def test_along_samples_every_prompt_is_asked_once(policy: Path, tmp_path: Path) -> None:
    pairs = policy.parent / "pairs.jsonl"
    output = tmp_path / "run"
    flags = ["--along", "samples", "--max-new-tokens", 12]
    assert headwater("divergence", "--model", policy, "--dataset", pairs, "--output", output, *flags) == 0
    run = runs.load(output)
    row_counts = next(stage for stage in run.row_counts if stage["stage"] == "prompts")
    assert row_counts["kept"] + row_counts["dropped"]["repeated_prompt"] == 60
    (total,) = rows(output, "kl_a_response")
    assert total["n"] == 2 * row_counts["kept"]
    assert all(row["first"] <= 12 for row in rows(output, "kl_a_token"))
    ratios = rows(output, "log_ratio_a_token")
    assert {row["responses"] for row in ratios} == {"samples"} and ratios[0]["n"] == total["n"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--max-new-tokens", 12], "--along samples"),
        (["--draws", -1], "expected 0 or more"),
        (["--along", "samples", "--max-new-tokens", 0], "expected 1 or more"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    policy: Path, flags: list[object], problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = policy.parent / "pairs.jsonl"
    assert headwater("divergence", "--model", policy, "--dataset", pairs, "--output", tmp_path / "run", *flags) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
