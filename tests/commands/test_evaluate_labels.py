"""`headwater evaluate` on single responses with a label: policies and reward models, and what needs pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Unpaired
from headwater.results import runs
from tests.data.test_unpaired import labelled
from tests.support.commands import succeed

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", 16, "--precision", "fp32", "--eval-fraction", 0.25, "--learning-rate", 4e-3]
PAIRS = ("accuracy", "length_accuracy", "length_correlation", "margin_mean", "brier")
"""Figures that only pairs have."""


def llamafactory(row: Unpaired, number: int) -> dict[str, Any]:
    """A row as LLaMA-Factory keeps it for KTO, in its sharegpt form."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": names[message.role], "value": message.content} for message in row.prompt]
    answer = {"from": "gpt", "value": row.response.text}
    return {"id": f"row {number}", "conversations": [*turns, answer], "kto_tag": row.label}


def write_llamafactory(path: Path, rows: list[Unpaired]) -> None:
    lines = (json.dumps(llamafactory(row, number)) for number, row in enumerate(rows))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind, and rows: pairs, both responses of each as labelled rows, and LLaMA-Factory's."""
    root = tmp_path_factory.mktemp("labels")
    pairs = generate(Corpus(pairs=360, seed=6, flip=0.0))
    reading.write(root / "train.jsonl", pairs[:120])
    reading.write(root / "pairs.jsonl", pairs[300:])
    reading.write(root / "labelled.jsonl", labelled(pairs[300:]))
    uneven = [row for number, row in enumerate(labelled(pairs)) if row.label or number % 3]
    test = {pair.conversation_id for pair in pairs[300:]}
    write_llamafactory(root / "kto.jsonl", [row for row in uneven if row.conversation_id not in test])
    write_llamafactory(root / "kto-test.jsonl", [row for row in uneven if row.conversation_id in test])
    train = ["--data", root / "train.jsonl", "--model"]
    succeed("train-reward", *train, MODEL, "--output", root / "reward", "--seeds", 2, *QUICK)
    succeed("train-reward", *train, MODEL.replace("scratch", "scratch_encoder"), "--output", root / "encoder", *QUICK)
    succeed("train-dpo", *train, MODEL, "--output", root / "dpo", *QUICK)
    succeed("train-dpo", *train, MODEL, "--output", root / "cpo", "--loss", "cpo(beta=0.2)", *QUICK)
    return root


def evaluated(study: Path, model: str, data: str, output: Path, *flags: object) -> runs.Run:
    call = ["--model", study / model, "--dataset", study / data, "--output", output, "--allow-leakage"]
    succeed("evaluate", *call, *flags)
    return runs.load(output)


def test_llamafactory_rows_train_by_kto_and_tell_labels_apart_on_others(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--data", study / "kto.jsonl", "--output", tmp_path / "kto", "--loss", "kto(beta=0.1)", "--keep", "30%"]
    succeed("train-dpo", *call, "--model", MODEL.replace("hidden=32", "hidden=64"), *QUICK)
    succeed("evaluate", "--model", tmp_path / "kto", "--dataset", study / "kto-test.jsonl", "--keep", "30%")
    run = runs.load(tmp_path / "kto-on-kto-test")
    rows = reading.load_examples(study / "kto-test.jsonl").preferences
    said, records, found = capsys.readouterr().out, run.records(), run.metrics
    assert [record["id"] for record in records] == [row.id for row in rows]
    assert run.row_counts[0]["rows_in"] == run.row_counts[0]["kept"] == len(rows)
    for record, row in zip(records, rows, strict=True):
        (there,), (missing,) = row.sides, {"chosen", "rejected"} - set(row.sides)
        assert record[f"{there}_tokens"] > 0 and np.isfinite(record[f"{there}_reward"])
        assert record[f"{missing}_tokens"] is record[f"{missing}_reward"] is None
    good, bad = (np.array([r[side] for r in records if r[side] is not None]) for side in SIDES)
    assert (found["desirable_reward_mean"]["n"], found["undesirable_reward_mean"]["n"]) == (len(good), len(bad))
    above = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
    assert found["auc"]["value"] == pytest.approx(above)
    assert found["auc"]["clusters"] == len({row.conversation_id for row in rows}) < found["auc"]["n"] == len(rows)
    assert 0.5 < found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert found["reward_difference"]["value"] == pytest.approx(good.mean() - bad.mean())
    assert found["reward_difference"]["low"] > 0
    assert "auc" in said and "undesirable_reward_mean" in said
    assert not set(PAIRS) & set(found), "there are no pairs"
    assert not (run.path / "diagnostics.json").exists()


SIDES = ("chosen_reward", "rejected_reward")


@pytest.mark.parametrize("model", ["dpo", "cpo", "reward", "encoder"])
def test_a_response_is_rewarded_as_in_a_pair(model: str, study: Path, tmp_path: Path) -> None:
    pairs = {record["id"]: record for record in evaluated(study, model, "pairs.jsonl", tmp_path / "p").records()}
    run = evaluated(study, model, "labelled.jsonl", tmp_path / "l")
    assert len(run.records()) == 2 * len(pairs)
    for record in run.records():
        name, side = record["id"].rsplit(" ", 1)
        for what in ("reward", "tokens") + (("reward_std",) if model == "reward" else ()):
            assert record[f"{side}_{what}"] == pytest.approx(pairs[name][f"{side}_{what}"], abs=1e-5)
    of_pairs = runs.load(tmp_path / "p").metrics
    for name in {"reward_mean", "reward_std", "ensemble_std"} & set(of_pairs):
        assert run.metrics[name]["value"] == pytest.approx(of_pairs[name]["value"], abs=1e-5)
        assert run.metrics[name]["n"] == of_pairs[name]["n"]
    assert ("ensemble_std" in run.metrics) == (model == "reward")


def test_a_policy_without_a_reference_is_scored_by_the_rewards_of_its_loss(study: Path, tmp_path: Path) -> None:
    succeed("score", "--input", study / "pairs.jsonl", "--output", tmp_path / "s.jsonl", "--model", study / "cpo")
    scored = {row.id: row for row in reading.load(tmp_path / "s.jsonl").preferences}
    for record in evaluated(study, "cpo", "pairs.jsonl", tmp_path / "e").records():
        row = scored[record["id"]]
        assert (row.chosen.score, row.rejected.score) == pytest.approx([record[side] for side in SIDES], abs=1e-4)


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "against": ("dpo", ["--against", "PAIRS"], "--against · needs pairs"),
    "untrained": ("encoder", ["--untrained"], "--untrained · needs pairs"),
    "correct": ("reward", ["--correct", "divide(alpha=10)"], "--correct · needs pairs"),
    "embed": ("dpo", ["--embed", "20"], "--embed · needs pairs"),
    "tail": ("dpo", ["--weights", "tail(alpha=0.5)"], "--weights tail · weighs"),
    "equal": ("dpo", ["--keep", "50%", "--cut", "equal"], "--cut equal · labelled rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_pairs_is_refused(
    case: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, flags, said = REFUSED[case]
    if case == "against":
        evaluated(study, model, "pairs.jsonl", tmp_path / "pairs")
    flags = [str(tmp_path / "pairs") if flag == "PAIRS" else flag for flag in flags]
    call = ["--model", str(study / model), "--dataset", str(study / "labelled.jsonl"), "--output", str(tmp_path / "e")]
    assert cli.main(["evaluate", *call, *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_pairs_are_not_compared_with_labelled_responses(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a correction fitted on them."""
    evaluated(study, "encoder", "labelled.jsonl", tmp_path / "l")
    call = ["--model", study / "encoder", "--dataset", study / "pairs.jsonl", "--output", tmp_path / "e"]
    for flags in (["--against", tmp_path / "l"], ["--correct", f"regress(on='{tmp_path / 'l'}')"]):
        assert cli.main([str(part) for part in ["evaluate", *call, *flags]]) == 2
        assert "recorded no rewards of pairs" in capsys.readouterr().err


def test_one_label_alone_has_nothing_to_be_told_from(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = reading.load_examples(study / "labelled.jsonl").preferences
    reading.write(tmp_path / "bad.jsonl", [row for row in rows if row.sides == ("rejected",)])
    found = evaluated(study, "encoder", str(tmp_path / "bad.jsonl"), tmp_path / "e").metrics
    assert "all responses are undesirable" in capsys.readouterr().err
    assert set(found) == {"reward_mean", "reward_std", "undesirable_reward_mean"}
    assert found["undesirable_reward_mean"]["n"] == len(rows) // 2


def test_the_report_says_how_far_labels_are_told_apart(study: Path, tmp_path: Path) -> None:
    auc = evaluated(study, "dpo", "labelled.jsonl", tmp_path / "labels").metrics["auc"]
    succeed("report", tmp_path / "labels", "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"a desirable one is rewarded above an undesirable one in {auc['value']:.3f} [" in page
    assert "undesirable reward mean" in page
    assert 'id="scores"' in page and 'id="lengths"' in page and 'id="diagnostics"' not in page


def test_the_kto_rows_of_llamafactory_evaluate(study: Path, shared_data: Path, tmp_path: Path) -> None:
    """Many are long for a tokenizer of 400 words; a reward model of a planted corpus knows nothing of them."""
    data = shared_data / "llamafactory" / "kto_en_demo.json.gz"
    run = evaluated(study, "encoder", str(data), tmp_path / "e")
    assert run.row_counts[0]["rows_in"] == 300
    assert run.metrics["auc"]["n"] + sum(sum(stage["dropped"].values()) for stage in run.row_counts) == 300
    assert run.metrics["auc"]["n"] > 150
    assert 0.25 < run.metrics["auc"]["value"] < 0.75
