"""`headwater sweep`: every point once, failures beside, and one table at the end."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.commands import train_reward
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.statistics import RESAMPLES, Estimate
from headwater.studies import sweep
from headwater.studies.sweep import summary
from tests.support.commands import headwater

FLAGS = ["--model", "scratch(hidden=32, layers=1, vocab=400)", "--precision", "fp32", "--eval-fraction", "0.4"]
FLAGS += ["--columns", "prompt=question"]
FLAGS += ["--keeps", "30%", "60%", "--seeds", "0", "1", "--per-device-train-batch-size", "16"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose prompt has another name, so that every step has to read them by --columns."""
    path = tmp_path_factory.mktemp("sweep") / "pairs.jsonl"
    reading.write(path, generate(Corpus(pairs=60, seed=2)))
    path.write_text(path.read_text(encoding="utf-8").replace('"prompt":', '"question":'), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(pairs: Path) -> Path:
    """A sweep whose first attempt fails at two points, and whose second one finishes."""
    output = pairs.parent / "sweep"
    train, calls = train_reward.run, []

    def failing(config: Any) -> Path:
        calls.append(config.output.name)
        if "keep-30-equal-examples" in config.output.name:
            raise DataError("no pair is left")
        return train(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_reward, "run", failing)
        assert headwater("sweep", "--data", pairs, "--output", output, *FLAGS) == 3
    assert len(calls) == 8  # equal tokens at 30 % need the run of equal examples, and fail with it
    assert headwater("sweep", "--data", pairs, "--output", output, *FLAGS) == 0
    return output


def rows(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "summary" / "sweep.json").read_text())["rows"]


def test_every_ratio_budget_and_judgement_has_a_row_over_all_seeds(done: Path) -> None:
    found = {(row["keep"], row["equal"], row["seen"]): row for row in rows(done)}
    assert found.keys() == {
        (keep, equal, seen)
        for keep, equal in [(1, "examples"), (0.6, "examples"), (0.3, "examples"), (0.6, "tokens"), (0.3, "tokens")]
        for seen in ("full", "same")
    }
    assert {row["accuracy"]["n"] for row in found.values()} == {2}
    accuracy = [runs.load(done / f"keep-60-equal-tokens-seed-{s}-on-60").metrics["accuracy"]["value"] for s in (0, 1)]
    assert found[0.6, "tokens", "same"]["accuracy"]["value"] == pytest.approx(sum(accuracy) / 2)


def test_equal_tokens_are_as_many_as_full_responses_have(done: Path) -> None:
    costs = {(row["keep"], row["equal"]): row for row in rows(done)}
    for name in ("tokens", "flops"):
        assert 0 < costs[0.3, "examples"][name] < costs[0.6, "examples"][name] < costs[1, "examples"][name]
    batch = 16 / 36  # an epoch has 36 pairs, or a few less: training ends with a whole batch
    for keep in (0.3, 0.6):
        assert 1 <= costs[keep, "tokens"]["tokens"] / costs[1, "examples"]["tokens"] <= 1 + batch
    epochs = runs.load(done / "keep-30-equal-tokens-seed-0").config["num_train_epochs"]
    assert epochs > runs.load(done / "keep-60-equal-tokens-seed-0").config["num_train_epochs"] > 1


@pytest.mark.fault("R17")
def test_what_is_done_is_not_done_again(pairs: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = done / "keep-60-equal-examples-seed-1"
    before = (point / "done").stat().st_mtime_ns
    assert headwater("sweep", "--data", pairs, "--output", done, *FLAGS) == 0
    assert (point / "done").stat().st_mtime_ns == before
    assert "10 points, 10 done" in capsys.readouterr().err
    assert (done / "report.html").is_file()
    assert not list(done.glob("*.failed.txt"))


def test_the_correlation_counts_ratios(done: Path) -> None:
    metrics = runs.load(done / "summary").metrics
    assert metrics.keys() == {
        f"rank_correlation_equal_{equal}_on_{seen}" for equal in ("examples", "tokens") for seen in ("full", "same")
    }
    assert all(found["n"] == 3 for found in metrics.values())


def test_what_less_costs_is_said_of_every_budget_by_the_rule(done: Path) -> None:
    """Pair by pair over both seeds: as many pairs as both evaluations hold."""
    says = runs.load(done / "summary").facts["says"]
    assert [sentence.split(":")[0] for sentence in says] == [
        f"Equal {equal}, judged on {responses}"
        for equal in ("examples", "tokens")
        for responses in ("full responses", "equally short responses")
    ]
    n = sum(runs.load(done / f"keep-100-equal-examples-seed-{s}-on-100").metrics["accuracy"]["n"] for s in (0, 1))
    assert all("training on the first 60 %" in sentence and f"{n} pairs" in sentence for sentence in says)
    page = html.unescape((done / "report.html").read_text(encoding="utf-8"))
    assert says[0] in page.replace("\u00a0", " ")


def test_status_only_looks(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sweep"
    assert headwater("sweep", "--data", pairs, "--output", output, "--status", *FLAGS) == 0
    assert capsys.readouterr().out.count("missing") == 10
    assert not output.exists()


def test_a_study_of_an_earlier_version_goes_on(pairs: Path, done: Path) -> None:
    """Its settings do not name the options of reading, which had their defaults."""
    path = done / sweep.SETTINGS
    before = path.read_text(encoding="utf-8")
    path.write_text("".join(line for line in before.splitlines(True) if not line.startswith("max_bad_rows")))
    assert headwater("sweep", "--data", pairs, "--output", done, "--status", *FLAGS) == 0
    path.write_text(before, encoding="utf-8")


def test_other_settings_need_another_directory(pairs: Path, done: Path) -> None:
    with pytest.raises(UsageError, match="was begun with None"):
        sweep.run(
            sweep.Config(
                data=pairs,
                read_options=reading.ReadOptions(columns="prompt=question"),
                output=done,
                learning_rate=0.5,
                model=FLAGS[1],
                precision="fp32",
                eval_fraction=0.4,
                per_device_train_batch_size=16,
            )
        )


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"keeps": ("100%",)}, "no ratio below 100%"),
        ({"keeps": ("50tok",)}, "is not a ratio"),
        ({"eval_fraction": 0.0}, "expected a share"),
        ({"seeds": ()}, "--seeds · is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        sweep.Config(data=Path("pairs.jsonl"), **flags)


@pytest.mark.parametrize("option", [{"freeze_layers": 1}, {"lora_r": 4}])
def test_options_of_training_reach_every_point(option: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(train_reward, "run", seen.append)
    study = sweep.Sweep(sweep.Config(data=Path("pairs.jsonl"), **option))  # type: ignore[arg-type]
    for point in study.points()[:2]:
        sweep._train(study, point)
    assert [{name: getattr(each.training, name) for name in option} for each in seen] == [option, option]


def test_an_interval_over_seeds_by_hand() -> None:
    """Three values of mean 0.6 and standard deviation 0.1; Student's t with 2 degrees of freedom is 4.3027."""
    found = summary.over_seeds([0.5, 0.6, 0.7])
    assert found.value == pytest.approx(0.6)
    assert found.high == pytest.approx(0.6 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert summary.over_seeds([0.5]) == Estimate(0.5, None, None, 1, 1)


def test_a_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 and 2 1 3 4: ρ = 1 − 6 · 2 / (4 · 15) = 0.8; seeds that agree leave no doubt."""
    found = summary.rank_correlation(
        [[0.1] * 2, [0.2] * 2, [0.3] * 2, [0.4] * 2], [0.6, 0.5, 0.7, 0.8], sure([0.6, 0.5, 0.7, 0.8]), 0
    )
    assert tuple(found) == pytest.approx((0.8, 0.8, 0.8, 4, 2))
    doubtful = summary.rank_correlation([[0.0, 0.6], [0.1, 0.7], [0.2, 0.8]], [0.5, 0.6, 0.7], sure([0.5, 0.6, 0.7]), 0)
    assert doubtful.value == pytest.approx(1.0)
    assert doubtful.low is not None and doubtful.low < 0.6
    assert summary.rank_correlation([[0.1], [0.2]], [0.5, 0.6], sure([0.5, 0.6]), 0).low is None


def test_doubt_about_one_pass_is_in_the_interval() -> None:
    """Seeds that agree on an order, and a one-pass curve that is turned round in a tenth of its resamples."""
    draws = sure([0.5, 0.6, 0.7])
    draws[: RESAMPLES // 10] = [0.7, 0.6, 0.5]
    found = summary.rank_correlation([[0.1] * 2, [0.2] * 2, [0.3] * 2], [0.5, 0.6, 0.7], draws, 0)
    assert tuple(found) == pytest.approx((1.0, -1.0, 1.0, 3, 2))


def sure(curve: list[float]) -> np.ndarray:
    """Resamples of a one-pass curve that is beyond doubt."""
    return np.tile(curve, (RESAMPLES, 1))
