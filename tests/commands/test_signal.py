"""`headwater signal` as a user types it: with words, with a reward model, with a policy."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.commands import signal
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.truncation import parse_keep
from headwater.errors import UsageError
from headwater.reporting.plots import PLOTS
from headwater.results import runs
from headwater.signals.options import ScorerOptions, SignalOptions, parse_ratios
from tests.support.commands import headwater

FEW = ["--limit", "100"]
MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.5"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signal") / "pairs.jsonl"
    reading.write(path, generate(Corpus(pairs=500, planted_depth=0.3, flip=0.0, seed=2)))
    return path


@pytest.fixture(scope="module")
def by_words(pairs: Path) -> runs.Run:
    output = pairs.parent / "by-words"
    assert headwater("signal", pairs, "--output", output, "--margin", 4) == 0
    return runs.load(output)


@pytest.fixture(scope="module")
def reward_model(pairs: Path) -> Path:
    output = pairs.parent / "rm"
    assert headwater("train-reward", "--data", pairs, "--output", output, "--model", MODEL, *QUICK, *FEW) == 0
    return output


def points(run: runs.Run, curve: str, cut: str = "own", unit: str = "ratio", group: str = "all") -> dict[float, Any]:
    rows = json.loads((run.path / "curves.json").read_text())
    wanted = (curve, cut, unit, group)
    return {r["amount"]: r for r in rows if (r["curve"], r["cut"], r["unit"], r["group"]) == wanted}


def test_words_find_the_planted_depth(by_words: runs.Run) -> None:
    depth = by_words.metrics["depth_90"]
    assert depth["low"] <= 0.3 <= depth["high"] <= 0.4
    accuracy = points(by_words, "accuracy")
    assert accuracy[0.3]["value"] > 0.95 > accuracy[0.2]["value"] > accuracy[0.05]["value"]
    assert max(point["value"] for amount, point in points(by_words, "suffix").items() if amount <= 0.6) < 0.65
    low, high = by_words.facts["shuffled"]
    assert 0.35 < low < 0.5 < high < 0.65


def test_every_point_has_n_and_an_interval(by_words: runs.Run) -> None:
    rows = json.loads((by_words.path / "curves.json").read_text())
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] > 0 for row in rows)
    assert {row["n"] for row in rows if row["group"] == "all"} == {500}
    assert {row["cut"] for row in rows} == {"own", "equal"}
    assert points(by_words, "accuracy", unit="words").keys() == {5, 10, 20, 50, 100, 200}
    assert any(row["group"].startswith("length") for row in rows)


def test_the_recommendation_is_a_fact_with_its_sentence(by_words: runs.Run) -> None:
    assert by_words.facts["verdict"] == "keep"
    assert 0.3 <= float(by_words.facts["recommended_keep"]) < 1
    assert by_words.facts["says"].startswith("Keep the first")
    assert 0 < by_words.facts["recommended_flops_saved"] < 1


def test_records_hold_every_pair_once(by_words: runs.Run) -> None:
    records = by_words.records()
    assert len({record["id"] for record in records}) == 500
    right = np.mean([record["margin_at_0.3"] > 0 for record in records])
    assert right == pytest.approx(points(by_words, "accuracy")[0.3]["value"])
    mean = np.mean([record["margin_at_0.3"] for record in records])
    assert mean == pytest.approx(points(by_words, "margin")[0.3]["value"])


def test_words_need_no_torch(pairs: Path, tmp_path: Path) -> None:
    arguments = ["signal", str(pairs), "--output", str(tmp_path / "run"), "--ratios", "50%"]
    code = f"""
import sys
from headwater import cli
assert cli.main({arguments!r}) == 0
assert 'torch' not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_reward_model_is_read_at_every_prefix(pairs: Path, reward_model: Path, tmp_path: Path) -> None:
    evaluated, output = tmp_path / "evaluated", tmp_path / "by-model"
    assert headwater("evaluate", "--model", reward_model, "--dataset", pairs, "--output", evaluated, *FEW) == 0
    assert headwater("signal", pairs, "--model", reward_model, "--output", output, *FEW) == 0
    run, full = runs.load(output), runs.load(evaluated)
    assert points(run, "accuracy")[1.0]["value"] == full.metrics["accuracy"]["value"]
    assert {row["id"] for row in run.records()} == {row["id"] for row in full.records()}
    assert points(run, "words").keys() == points(run, "accuracy").keys()
    for part in ("suffix", "middle", "random-span"):  # in passes of their own, so at a few ratios
        assert points(run, part).keys() == {0.2, 0.5}
        assert {point["n"] for point in points(run, part).values()} == {len(run.records())}
    margins = {row["id"]: row["chosen_reward"] - row["rejected_reward"] for row in full.records()}
    for row in run.records():
        assert row["margin_at_1"] == pytest.approx(margins[row["id"]], abs=1e-5)


def test_a_policy_is_read_with_its_reference(pairs: Path, tmp_path: Path) -> None:
    policy, evaluated, output = tmp_path / "dpo", tmp_path / "evaluated", tmp_path / "by-policy"
    assert headwater("train-dpo", "--data", pairs, "--output", policy, "--model", MODEL, *QUICK, *FEW) == 0
    assert headwater("evaluate", "--model", policy, "--dataset", pairs, "--output", evaluated, "--beta", 0.5, *FEW) == 0
    assert headwater("signal", pairs, "--model", policy, "--output", output, "--beta", 0.5, *FEW) == 0
    run, full = runs.load(output), runs.load(evaluated)
    margins = {row["id"]: row["chosen_reward"] - row["rejected_reward"] for row in full.records()}
    for row in run.records():  # `evaluate` adds up hundreds of nats in float32: 2⁻²⁴ of them, at every token
        assert row["margin_at_1"] == pytest.approx(margins[row["id"]], abs=2e-3)
    assert points(run, "suffix").keys() == points(run, "accuracy").keys() - {1.0}
    with pytest.raises(UsageError, match="is a policy, whose one pass scores every span"):
        signal.run(
            signal.Config(
                data=pairs, model=str(policy), options=SignalOptions(span_ratios=("20%",)), output=tmp_path / "never"
            )
        )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--end", "never"], "--end · is about a model"),
        (["--allow-leakage"], "--allow-leakage · is about a model"),
        (["--margin", "0"], "--margin 0"),
        (["--ratios", "50tok"], "is not a ratio"),
        (["--ratios", "1.0"], "holds nothing below 100%"),
        (["--ratios", "150%"], "outside"),
        (["--amounts", "0"], "above 0"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    pairs: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert headwater("signal", pairs, "--output", tmp_path / "run", *arguments) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_policy_flags_are_refused_for_a_reward_model(pairs: Path, reward_model: Path) -> None:
    with pytest.raises(UsageError, match="is a reward model"):
        signal.run(
            signal.Config(
                data=pairs, model=str(reward_model), scorer=ScorerOptions(beta=0.2), output=pairs.parent / "never"
            )
        )


def test_ratios_are_sorted_and_end_in_one() -> None:
    assert parse_ratios(["50%", "0.25", "0.5"]) == (Fraction(1, 4), Fraction(1, 2), Fraction(1))


def test_keep_auto_takes_what_the_run_recommends(pairs: Path, by_words: runs.Run, tmp_path: Path) -> None:
    for name, keep in (("auto", f"auto:{by_words.path}"), ("same", by_words.facts["recommended_keep"])):
        assert headwater("preprocess", "--input", pairs, "--output", tmp_path / f"{name}.jsonl", "--keep", keep) == 0
    assert (tmp_path / "auto.jsonl").read_bytes() == (tmp_path / "same.jsonl").read_bytes()
    assert runs.load(tmp_path / "auto.jsonl.run").facts["keep"] == float(by_words.facts["recommended_keep"]) < 1


def test_keep_auto_never_guesses(pairs: Path, reward_model: Path, tmp_path: Path) -> None:
    undecided = tmp_path / "undecided"
    assert headwater("signal", pairs, "--limit", 40, "--output", undecided) == 0
    assert runs.load(undecided).facts["recommended_keep"] is None
    assert "No conclusion" in runs.load(undecided).facts["says"]
    for keep, problem in {
        "auto": "names no run",
        "auto:": "names no run",
        f"auto:{tmp_path / 'nowhere'}": "is no finished run",
        f"auto:{reward_model}": "is not a run of headwater signal",
        f"auto:{undecided}": "came to no conclusion",
    }.items():
        with pytest.raises(UsageError, match=problem):
            parse_keep(keep)


def test_a_published_curve_is_drawn_behind_with_its_source(pairs: Path, tmp_path: Path) -> None:
    file = tmp_path / "paper.json"
    file.write_text(json.dumps({"fig2": [[0.5, 0.73], [0.1, 0.61], [1, 0.75]], "fig3": [[1, 0.5], [50, 0.7]]}))
    for name, unit, amounts in (("fig2", "ratio", [0.1, 0.5, 1]), ("fig3", "words", [1, 50])):
        output = tmp_path / name
        flags = ["--limit", 40, "--ratios", "50%", "--published", f"{file}:{name}"]
        assert headwater("signal", pairs, "--output", output, *flags) == 0
        run = runs.load(output)
        assert list(points(run, "published", unit=unit)) == amounts
        drawn = [block for block in PLOTS["signal"].draw([run]) if f"paper.json:{name}" in [m.label for m in block.key]]
        assert len(drawn) == 1


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ('{"fig2": [[0.5, 0.7]]}', "fig3", "did you mean fig2"),
        ('{"fig2": [0.5]}', "fig2", "is no curve"),
        ("[1]", "fig2", "is no curve"),
        ("nonsense", "fig2", "is no curve"),
        (None, "fig2", "No such file"),
    ],
)
def test_what_is_no_published_curve_is_refused(
    pairs: Path, tmp_path: Path, content: str | None, name: str, problem: str
) -> None:
    file = tmp_path / "paper.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=problem):
        signal.run(
            signal.Config(data=pairs, output=tmp_path / "run", options=SignalOptions(published=f"{file}:{name}"))
        )


def test_too_few_prompts_are_refused_before_a_run_begins(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headwater("signal", pairs, "--limit", 5, "--output", tmp_path / "run") == 3
    assert "expected 10 or more" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_model_is_read_where_words_have_too_few_prompts(
    pairs: Path, reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", reward_model, "--limit", 9, "--allow-leakage", "--output", tmp_path / "run"]
    assert headwater("signal", pairs, *flags) == 0
    assert "too few conversations for the bag of words" in capsys.readouterr().err
    assert not points(runs.load(tmp_path / "run"), "words")
