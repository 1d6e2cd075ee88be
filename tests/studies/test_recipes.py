"""`headwater run`: cells of a recipe run once, tables and answers come from them, and pages from numbers alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from headwater import statistics
from headwater.commands import evaluate
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.errors import DataError
from headwater.results import runs
from headwater.results.study import StudyResult, StudyTable
from headwater.studies import recipes
from headwater.studies.recipes import pages
from tests.conftest import ROOT
from tests.support import studies
from tests.support.commands import headwater

PAPERS = sorted((ROOT / "recipes" / "papers").glob("*.yaml"))
SMALL = sorted((ROOT / "recipes").glob("*.yaml"))

TINY = """
title: Half of the response
question: Is half of it enough?
source: a test
data:
  pairs: {path: pairs.jsonl, get: write them}
values:
  seed: [0, 1]
  keep: [100%, 50%]
steps:
  - cell: words
    command: signal
    options: {data: "{data:pairs}", ratios: [50%], seed: 0}
  - cell: train-{keep}-{seed}
    command: train-reward
    options:
      data: "{data:pairs}"
      model: scratch(hidden=32, layers=1, vocab=300)
      precision: fp32
      eval_fraction: 0.4
      per_device_train_batch_size: 16
      keep: "{keep}"
      seed: "{seed}"
  - cell: full-{keep}-{seed}
    command: evaluate
    options: {model: "{run:train-{keep}-{seed}}", data: "{data:pairs}"}
tables:
  - title: Full responses
    kind: accuracy
    cells: full-{keep}-{seed}
    rows: [keep]
    cost: train-{keep}-{seed}
    words: words
  - title: Loss
    kind: figures
    cells: train-{keep}-{seed}
    rows: [keep, seed]
    metrics: {held-out loss: eval_loss}
  - title: By prefix
    kind: curve
    cells: words
    rows: []
    curves: {prefix: accuracy, end: suffix}
claims:
  - says: Half of the response is not worse.
    source: table 1
    table: Full responses
    first: {keep: 50%}
    second: {keep: 100%}
    expect: not worse
    margin: 50
  - says: The model beats the bag of words.
    table: Full responses
    figure: above words
    expect: above
checks:
  - {table: Full responses, where: {keep: 100%}, figure: accuracy, low: 0, high: 1}
figures:
  - {kind: lines, title: Accuracy, table: Full responses, x: keep, y: accuracy, published: {printed: "curves.json:a"}}
  - {kind: plot, title: Loss, plot: loss, cells: "train-{keep}-{seed}"}
published:
  table 1: {100%: 0.76, 50%: 0.75}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with its pairs and a published curve."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    reading.write(path.with_name("pairs.jsonl"), generate(Corpus(pairs=60, seed=2)))
    path.write_text(TINY.replace("curves.json", str(path.with_name("curves.json"))), encoding="utf-8")
    path.with_name("curves.json").write_text(json.dumps({"a": [[0.5, 0.6], [1.0, 0.7]]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(recipe: Path) -> Path:
    """The directory of the study after a first attempt at which one evaluation fails, and a second one."""
    output, run = recipe.with_name("study"), evaluate.run

    def failing(config: evaluate.Config) -> Path:
        if config.output is not None and config.output.name == "full-50-1":
            raise DataError("no pair is left")
        return run(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "run", failing)
        assert headwater("run", recipe, "--output", output) == 3
    assert "no pair is left" in (output / "full-50-1.failed.txt").read_text(encoding="utf-8")
    assert headwater("run", recipe, "--output", output, "--write", recipe.with_name("pages")) == 0
    return output


@pytest.fixture(scope="module")
def result(recipe: Path, done: Path) -> StudyResult:
    stored = json.loads((recipe.with_name("pages") / "tiny.json").read_text(encoding="utf-8"))
    return StudyResult.from_json(stored)


def table(result: StudyResult, title: str) -> StudyTable:
    return next(one for one in result.tables if one.title == title)


@pytest.mark.fault("R17")
def test_what_is_done_is_not_done_again(recipe: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("*/done")}
    assert len(before) == 9
    assert headwater("run", recipe, "--output", done) == 0
    assert {path: path.stat().st_mtime_ns for path in done.glob("*/done")} == before
    assert "9 cells, 9 done" in capsys.readouterr().err
    assert not list(done.glob("*.failed.txt"))


def test_rows_are_means_over_seeds_of_the_runs(done: Path, result: StudyResult) -> None:
    for row in table(result, "Full responses").rows:
        keep = row.labels["keep"].removesuffix("%")
        scored = [runs.load(done / f"full-{keep}-{seed}").metrics["accuracy"] for seed in (0, 1)]
        mean = sum(one["value"] * one["n"] for one in scored) / sum(one["n"] for one in scored)
        assert row.figures["accuracy"].value == pytest.approx(mean)
        assert row.figures["seeds"].value == 2
        trained = [runs.load(done / f"train-{keep}-{seed}") for seed in (0, 1)]
        tokens = np.mean([run.facts["training_tokens"] for run in trained])
        assert row.figures["training_tokens"].value == pytest.approx(tokens)
        accuracy, words, above = (row.figures[name].value for name in ("accuracy", "bag of words", "above words"))
        assert above == pytest.approx(accuracy - words)
    loss = {tuple(row.labels.values()): row.figures["held-out loss"] for row in table(result, "Loss").rows}
    assert loss["50%", "1"].value == runs.load(done / "train-50-1").metrics["eval_loss"]
    prefix = [row for row in table(result, "By prefix").rows if row.labels == {"curve": "prefix", "keep": "100%"}]
    assert prefix[0].figures["accuracy"].value == runs.load(done / "words").metrics["accuracy"]["value"]


def test_claims_and_checks_are_answered_by_the_numbers(result: StudyResult) -> None:
    answers = {claim.says: claim for claim in result.claims}
    half = answers["Half of the response is not worse."]
    assert half.answer == "replicates"  # at a margin of 50 points
    assert half.sentence.startswith("keep 50% is not worse than keep 100% by more than 50 points: ")
    words = [claim for claim in result.claims if claim.says == "The model beats the bag of words."]
    figures = [row.figures["above words"] for row in table(result, "Full responses").rows]
    assert len(words) == len(figures) == 2
    for claim, found in zip(words, figures, strict=True):
        assert (claim.answer == "replicates") <= (found.low is not None and found.low > 0)
    assert [check.outcome for check in result.checks] == ["inside"]


def test_figures_hold_the_rows_and_the_published_curve(result: StudyResult) -> None:
    accuracy, loss = result.figures
    drawn = json.dumps(accuracy.drawings[0].spec)
    for row in table(result, "Full responses").rows:
        assert f'"y": {row.figures["accuracy"].value}' in drawn
    assert '{"x": 50.0, "y": 0.6,' in drawn and "printed" in drawn
    assert loss.drawings


def test_pages_come_from_the_numbers_alone(recipe: Path, result: StudyResult) -> None:
    folder = recipe.with_name("pages")
    for name, text in pages.files_of(result).items():
        assert (folder / name).read_text(encoding="utf-8") == text
    page = (folder / "tiny.md").read_text(encoding="utf-8")
    assert page.index("Replicates here") < page.index("## Full responses") < page.index("## Settings")
    assert "9 of 9 cells" in page and "partial" not in page
    assert str(recipe.parent) not in page.replace(str(recipe.with_name("curves.json")), "")
    assert "[Half of the response](tiny.md)" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_figure_outside_of_its_interval_fails(recipe: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = recipe.with_name("broken.yaml")
    broken.write_text(recipe.read_text(encoding="utf-8").replace("low: 0, high: 1", "low: 1.5, high: 2"))
    assert headwater("run", broken, "--output", done) == 8
    assert "expected 1.5 to 2" in capsys.readouterr().err


def test_other_settings_are_refused_or_replaced_with_what_reads_them(
    recipe: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = recipe.with_name("other.yaml")
    other.write_text(recipe.read_text(encoding="utf-8").replace("seed: 0}", "seed: 3}"))
    assert headwater("run", other, "--output", done) == 2
    assert "was run with seed 0, and the recipe says 3" in capsys.readouterr().err
    assert headwater("run", other, "--output", done, "--status", "--only", "words") == 0
    assert "other settings" in capsys.readouterr().out
    study = recipes._study(recipes.Config(str(recipe), output=done))
    environment = done / "train-50-0" / "environment.json"
    before = environment.read_text(encoding="utf-8")
    environment.write_text(re.sub(r'"started": "\d+', '"started": "2999', before), encoding="utf-8")
    assert recipes.state_of(study.cells["full-50-0"], study.cells) == "outdated"
    environment.write_text(before, encoding="utf-8")
    assert recipes.state_of(study.cells["full-50-0"], study.cells) == "done"


def test_a_part_of_a_study_is_marked(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("run", recipe, "--output", tmp_path / "part", "--write", tmp_path / "pages")
    assert headwater(*given, "--only", "words", "--limit-cells", 1) == 0
    page = (tmp_path / "pages" / "tiny.md").read_text(encoding="utf-8")
    assert "1 of 9 cells" in page and "These are partial results." in page
    assert "0 of 4 cells." in page and "Not measured yet" in page
    capsys.readouterr()
    assert headwater(*given, "--time", "0s") == 0
    assert "--time is over" in capsys.readouterr().err


def test_a_dry_run_needs_no_data(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = tmp_path / "moved.yaml"
    moved.write_text(TINY, encoding="utf-8")
    assert headwater("run", moved, "--output", tmp_path / "o", "--dry-run", "--only", "full-50-*") == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.rpartition("/")[2] for line in lines]
    assert names == ["train-50-0", "full-50-0", "train-50-1", "full-50-1"], "with what they read, seed by seed"
    assert all(line.startswith("headwater ") for line in lines) and not (tmp_path / "o").exists()
    assert headwater("run", moved, "--output", tmp_path / "o") == 2
    error = capsys.readouterr().err
    assert "data pairs is not at" in error and "(write them)" in error
    pairs = recipe.with_name("pairs.jsonl")
    given = ("run", moved, "--output", tmp_path / "o", "--data", f"pairs={pairs}")
    assert headwater(*given, "--limit-cells", 0) == 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("precision: fp32", "precison: fp32", "train-reward has no option precison · did you mean precision?"),
        ("eval_fraction: 0.4", "eval_fraction: many", "eval_fraction: many · expected a number"),
        ("precision: fp32", "output: here", "output is set by the study"),
        ("command: evaluate", "command: evaluat", "unknown command evaluat · did you mean evaluate?"),
        ("command: evaluate", "command: demo", "unknown command demo"),
        ("{run:train-{keep}-{seed}}", "{run:trian-{keep}-{seed}}", "is no cell"),
        ("{data:pairs}", "{data:pears}", "{data:pears} is not declared · did you mean pairs?"),
        ('keep: "{keep}"', 'keep: "{ratio}"', "{ratio} is no value of these cells"),
        ("cell: full-{keep}-{seed}", "cell: full-{keep}", "no step has the cells full-{keep}-{seed}"),
        ("source: a test", "sauce: a test", "unknown key sauce · did you mean source?"),
        ("kind: curve", "kind: curves", "unknown kind curves · did you mean curve?"),
        ("rows: [keep]", "rows: [cut]", "has no value cut"),
        ("    table: Full responses\n    first", "    table: Half\n    first", "no table has the title Half"),
        ("cost: train-{keep}-{seed}", "cost: train-{keep}", "no step has the cells"),
        ("expect: not worse", "expect: nicer", "unknown value nicer"),
        ("    second: {keep: 100%}\n", "", "expected first and second, or figure"),
        ("low: 0, high: 1", "low: 0", "has no high"),
        ("plot: loss", "plot: los", "unknown plot los · did you mean loss?"),
        ("seed: [0, 1]", "seed: [0, -1]", "is no seed"),
        ("keep: [100%, 50%]", "keep: [50%, 50 %]", "is the name of two cells"),
        ("title: Half of", "title: Again\ntitle: Half of", "gives title again"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_runs(
    old: str, new: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in TINY
    (tmp_path / "bad.yaml").write_text(TINY.replace(old, new), encoding="utf-8")
    assert headwater("run", tmp_path / "bad.yaml", "--output", tmp_path / "o", "--dry-run") == 2
    error = capsys.readouterr().err
    assert problem in error and "bad.yaml:" in error
    assert not (tmp_path / "o").exists()


def test_a_cell_reads_no_cell_that_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = TINY.replace("model: scratch(hidden=32, layers=1, vocab=300)", 'model: "{run:full-{keep}-{seed}}"')
    (tmp_path / "turned.yaml").write_text(turned, encoding="utf-8")
    assert headwater("run", tmp_path / "turned.yaml", "--dry-run") == 2
    assert "reads itself" in capsys.readouterr().err


@pytest.mark.parametrize("file", [*SMALL, *PAPERS], ids=lambda file: file.stem)
def test_the_recipes_of_the_repository_can_run(file: Path, tmp_path: Path) -> None:
    """Options, names, claims and figures of every recipe, without data or models."""
    assert headwater("run", file, "--output", tmp_path / "study", "--dry-run") == 0


def test_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipes.recipe.find("shallow-reward") == ROOT / "recipes" / "shallow-reward.yaml"
    assert headwater("run", "shalow-reward", "--dry-run") == 2


def test_the_pages_of_the_repository_are_those_of_their_numbers() -> None:
    assert studies.written() == studies.expected(), "run `python -m tests.support.studies`"


# ---- Figures over repeats, and folds ----


def test_one_repeat_has_the_interval_of_a_mean() -> None:
    values, clusters = np.array([1.0, 0.0, 1.0, 1.0, 0.5, 0.0]), ["a", "a", "b", "c", "d", "e"]
    assert statistics.crossed_mean(values[None], clusters, 3) == statistics.mean(values, clusters, 3)


def test_a_mean_over_repeats_by_hand() -> None:
    """Two seeds with a pair in common: the mean is over what was scored; repeats that differ widen the interval."""
    values = np.array([[1.0, 0.0, np.nan], [np.nan, 1.0, 1.0]])
    found = statistics.crossed_mean(values, ["a", "b", "c"])
    assert (found.value, found.n, found.clusters) == (0.75, 3, 3)
    same = statistics.crossed_mean(np.tile([1.0, 0.0] * 20, (2, 1)), [str(n) for n in range(40)])
    apart = statistics.crossed_mean(np.array([[1.0] * 40, [0.0] * 40]), [str(n) for n in range(40)])
    assert same.value == apart.value == 0.5
    assert same.low is not None and apart.low is not None and same.low > 0.3 > apart.low == 0.0
    assert np.isnan(statistics.crossed_mean(np.full((2, 3), np.nan), ["a", "b", "c"]).value)


def test_student_interval_over_repeats_is_not_clipped() -> None:
    found = statistics.over_repeats([-1.0, 1.0])
    assert found.value == 0 and found.low == pytest.approx(-12.706, abs=1e-2)
