"""`headwater compare`: judgements in, who is better out; published figures, contradictions, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headwater
from headwater import cli, console
from headwater.errors import UsageError
from headwater.results import runs


def rows(judge: str, model: str, *, wins: float, count: int = 60, gain: float | None = None) -> list[dict[str, Any]]:
    """Annotations of which a share is won; the model's answers grow longer, and its scores follow the outcome."""
    found = []
    for number in range(count):
        won = number < wins * count
        row: dict[str, Any] = {
            "instruction": f"Prompt {number}?",
            "output_1": "short answer",
            "output_2": "longer " * (1 + number % 7),
            "generator_1": "base",
            "generator_2": model,
            "annotator": judge,
            "preference": 2.0 if won else 1.0,
        }
        if gain is not None:
            row |= {"score_1": 0.0, "score_2": gain * (number + 1) if won else -gain * (number + 1)}
        found.append(row)
    return found


def write(path: Path, *groups: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps([row for group in groups for row in group]), encoding="utf-8")
    return path


def compare(output: Path, *arguments: object, code: int = 0) -> None:
    assert cli.main(["compare", *map(str, arguments), "--output", str(output)]) == code


def test_two_policies_under_two_judges_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a.json", rows("trained", "dpo", wins=0.8, gain=0.1), rows("trained", "sft", wins=0.5))
    two = write(tmp_path / "b.json", rows("other", "dpo", wins=0.2))
    compare(tmp_path / "c", one, two, "--examples", "2")
    run = runs.load(tmp_path / "c")
    assert run.metrics["win_rate/trained/dpo"]["value"] == pytest.approx(0.8)
    assert run.metrics["win_rate/other/dpo"]["value"] == pytest.approx(0.2)
    assert run.metrics["difference/trained/dpo − sft"]["value"] == pytest.approx(0.3)
    assert run.metrics["agreement/trained ~ other"]["value"] == pytest.approx(0.4)
    assert run.metrics["score_difference/trained/dpo"]["n"] == 60
    assert "score_difference/trained/sft" not in run.metrics
    assert {"strength/trained/dpo", "strength/trained/sft", "strength/trained/base"} <= set(run.metrics)
    assert "strength/other/dpo" not in run.metrics
    says = run.facts["says"]
    assert "The judges contradict each other on dpo: trained prefers it, other does not." in says
    assert any("sft may or may not be worse than base, which is not decided" in sentence for sentence in says)
    told = " ".join(capsys.readouterr().out.split())
    assert says[0] in told
    for title in ("win rate against base", "score and length", "agreement of judges", "votes of the row against"):
        assert title in told
    assert "Prompt 47?" in told and "Prompt 59?" in told  # gained and lost most
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    best = found["examples"][0]
    assert [example["prompt"] for example in best["improved"]] == ["Prompt 47?", "Prompt 46?"]
    assert [example["prompt"] for example in best["degraded"]] == ["Prompt 59?", "Prompt 58?"]
    assert found["official"][0]["discrete_win_rate"] == pytest.approx(80.0)
    assert len(run.records()) == 180
    assert sum(stage["rows_in"] for stage in run.row_counts[:2]) == 180


def test_judgements_without_the_baseline_are_counted_as_such(tmp_path: Path) -> None:
    elsewhere = [row | {"generator_1": "dpo"} for row in rows("j", "sft", wins=0.5)]
    path = write(tmp_path / "a.json", rows("j", "dpo", wins=0.8), elsewhere)
    compare(tmp_path / "c", path, "--baseline", "base")
    run = runs.load(tmp_path / "c")
    assert run.row_counts[-1]["stage"] == "against base"
    assert (run.row_counts[-1]["kept"], run.row_counts[-1]["dropped"]) == (60, {"without_baseline": 60})
    # The ranking knows sft through dpo, which it ties with.
    assert run.metrics["strength/j/sft"]["value"] == pytest.approx(run.metrics["strength/j/dpo"]["value"], abs=1e-6)
    assert "win_rate/j/sft" not in run.metrics


def test_names_and_prompts_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged = [row | {"instruction": f"[/b] {row['instruction']}"} for row in rows("rm:m: [red]", "dpo", wins=0.5)]
    compare(tmp_path / "c", write(tmp_path / "a.json", judged))
    told = capsys.readouterr().out
    assert "by rm:m: [red]" in told and "[/b] Prompt 0?" in told


def test_labels_of_people_stand_beside_judges(tmp_path: Path) -> None:
    """A sheet of labels: two people, who differ on ten prompts, one of whom left five rows empty."""
    judged = write(tmp_path / "a.json", rows("reward", "dpo", wins=0.5, gain=1.0))
    sheet = tmp_path / "labels.csv"
    with sheet.open("w", encoding="utf-8", newline="") as handle:
        columns = ["instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference"]
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        for number, row in enumerate(rows("", "dpo", wins=0.5)):
            of_kim = "" if number < 5 else "1" if number < 10 else f"{row['preference']:.0f}"
            writer.writerow(row | {"annotator": "ann", "preference": f"{row['preference']:.0f}"})
            writer.writerow(row | {"annotator": "kim", "preference": of_kim})
    compare(tmp_path / "c", judged, sheet)
    run = runs.load(tmp_path / "c")
    assert run.metrics["kappa/reward ~ ann"]["value"] == 1.0
    assert run.metrics["agreement/reward ~ kim"]["value"] == pytest.approx(50 / 55)
    assert run.row_counts[2]["dropped"] == {"unparsed": 5}


def test_the_published_leaderboard(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = shared_data / "alpaca_eval2"
    name = "gpt4_0613_concise"
    reference = data / "instruction_difficulty_recovered.csv"
    compare(tmp_path / "c", data / f"annotations_{name}.json.gz", "--lc-data", reference)
    with (data / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open(encoding="utf-8", newline="") as handle:
        published = {row[""]: row for row in csv.DictReader(handle)}[name]
    (official,) = json.loads((tmp_path / "c" / "comparison.json").read_text())["official"]
    for figure in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_draws"):
        assert official[figure] == pytest.approx(float(published[figure]), abs=1e-3)
    assert official["length_control"] == "difficulty"
    # Without the gamed baselines' annotations the refit is 1.02 points from the published 21.58.
    assert official["length_controlled_winrate"] - float(published["length_controlled_winrate"]) == pytest.approx(
        1.02, abs=0.01
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "as AlpacaEval counts" in told and f"{float(published['win_rate']):.2f}" in told
    # From 9.4 to 22.6 is much, but not what upstream warns of.
    assert not any("length model may not fit" in said for said in runs.load(tmp_path / "c").facts["says"])


def test_a_model_with_803_judged_prompts_takes_the_data_of_805(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.evaluation.length_control.RESAMPLES", 5)
    data = shared_data / "alpaca_eval2"
    judged = data / "annotations_text_davinci_001.json.gz"
    given = ["--lc-data", data / "instruction_difficulty_recovered.csv"]
    compare(tmp_path / "a", judged, *given, code=3)
    assert "803 judged prompts, and 805" in (said := capsys.readouterr().err) and "--lc-prompts" in said
    compare(tmp_path / "a", judged, *given, "--lc-prompts", data / "outputs_gpt4_1106_preview.json.gz")
    (official,) = json.loads((tmp_path / "a" / "comparison.json").read_text())["official"]
    assert (official["n_total"], official["length_control"]) == (803, "difficulty")
    assert official["length_controlled_winrate"] == pytest.approx(6.5, abs=0.1)
    # Another model that was judged on all prompts tells their order too.
    compare(tmp_path / "b", judged, data / "annotations_gpt4_0613_concise.json.gz", *given)
    both = json.loads((tmp_path / "b" / "comparison.json").read_text())["official"]
    assert both[0]["length_controlled_winrate"] == official["length_controlled_winrate"]


def test_without_alpaca_evals_data_equal_length_is_no_headline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows("j", "t", wins=0.3)
    for place, row in enumerate(found):
        row["output_2"] = "x" * (5 + place)
    compare(tmp_path / "c", write(tmp_path / "a.json", found))
    told = " ".join(capsys.readouterr().out.split())
    assert "at equal length (" not in told
    assert "By j, t at equal length by a model of length alone (minimal; not AlpacaEval's figure): " in told
    assert "--lc-data df_gamed.csv of its repository settles it" in told
    metrics = runs.load(tmp_path / "c").metrics
    assert "lc_win_rate/j/t" not in metrics
    minimal, plain = metrics["minimal_lc_win_rate/j/t"], metrics["win_rate/j/t"]["value"]
    assert minimal["low"] <= plain <= minimal["high"]


def test_an_undefined_figure_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console._stdout, "_width", 200)
    one, two = rows("first", "t", wins=1.0), rows("second", "t", wins=1.0)
    compare(tmp_path / "c", write(tmp_path / "a.json", one, two))
    told = " ".join(capsys.readouterr().out.split())
    assert "undefined: both judges use one category" in told
    assert "undefined: the preferences of a judge do not vary" in told
    assert "nan" not in told


def arena(path: Path, count: int = 40) -> Path:
    """Judgments of v2.0 in two categories: the model wins maths clearly, and ties the rest."""
    games = {"math": ["B>>A", "A>>B"], "coding": ["A=B", "A=B"]}
    lines = [
        {"uid": f"q{i}", "model": "t", "judge": "gpt", "category": c, "games": [{"score": s} for s in games[c]]}
        for i in range(count)
        for c in [("math", "coding")[i % 2]]
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_arena_hard_by_category_and_as_upstream(tmp_path: Path) -> None:
    path = arena(tmp_path / "judgments.jsonl")
    compare(tmp_path / "ours", path)
    compare(tmp_path / "theirs", path, "--compat", "upstream")
    ours, theirs = (runs.load(tmp_path / name).metrics for name in ("ours", "theirs"))
    # Twenty prompts of six votes won, and twenty of two votes tied.
    assert ours["win_rate/gpt/t"]["value"] == pytest.approx((120 + 20) / 160)
    assert ours["win_rate in math/gpt/t"]["value"] == 1.0 and ours["win_rate in coding/gpt/t"]["value"] == 0.5
    assert theirs["win_rate/gpt/t"]["value"] == pytest.approx(140 / 160, abs=0.02)
    width = [found["win_rate/gpt/t"]["high"] - found["win_rate/gpt/t"]["low"] for found in (ours, theirs)]
    assert width[0] > 1.3 * width[1]


def test_style_control_takes_answers_from_files(tmp_path: Path) -> None:
    path = arena(tmp_path / "judgments.jsonl")
    generator = np.random.default_rng(0)
    files = []
    for model in ("baseline", "t"):
        files.append(tmp_path / f"{model}.jsonl")
        lines = [
            {"uid": f"q{i}", "model": model, "messages": [{"content": "x"}, {"content": "y" * int(n)}]}
            for i, n in enumerate(generator.integers(10, 99, 40))
        ]
        files[-1].write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    compare(tmp_path / "c", path, "--style-control", "--answers", *files)
    metrics = runs.load(tmp_path / "c").metrics
    assert {"strength/gpt/t", "strength/gpt/style: length", "strength/gpt/style: bold"} <= set(metrics)
    compare(tmp_path / "d", path, "--style-control", code=3)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--baseline", "nobody"], "met no other model"),
        (["--answers", "a.json"], "has no effect without --style-control"),
        (["--examples", "-1"], "expected 0 or more"),
        (["--lc-data", "none.csv"], "no such file"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    more: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compare(tmp_path / "c", write(tmp_path / "a.json", rows("j", "t", wins=0.5)), *more, code=2)
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("twice", ["the same path", "another path", "a copy", "a run and its file", "in memory"])
def test_the_same_judgements_twice_are_refused(twice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged = rows("j", "t", wins=0.5)
    path = write(tmp_path / "annotations.json", judged)
    other = {
        "another path": tmp_path / "." / ".." / tmp_path.name / path.name,
        "a copy": tmp_path / "copy.json",
        "a run and its file": tmp_path,
    }.get(twice, path)
    if twice == "in memory":
        with pytest.raises(UsageError, match="its judgements would count twice · leave one out"):
            headwater.compare([judged, judged], output=tmp_path / "c")
        return
    if twice == "a copy":
        other.write_bytes(path.read_bytes())
    compare(tmp_path / "c", path, other, code=2)
    holds = "is named twice" if other == path else f"holds the same as {path}"
    said = " ".join(capsys.readouterr().err.split())
    assert f"{other} · {holds} · its judgements would count twice · leave one out" in said
    assert not (tmp_path / "c").exists()
    compare(tmp_path / "c", path, write(tmp_path / "more.json", rows("k", "t", wins=0.5)))


def test_length_data_without_answers_has_no_effect_and_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.csv").write_text("index,instruction_difficulty\n0,1.0\n", encoding="utf-8")
    compare(tmp_path / "c", arena(tmp_path / "j.jsonl"), "--lc-data", tmp_path / "d.csv", code=2)
    assert "--lc-data · has no effect" in capsys.readouterr().err
    other = rows("j", "t", wins=0.5)
    turned = [row | {"generator_1": "other"} for row in other]
    compare(tmp_path / "c", write(tmp_path / "two.json", other, turned), code=2)
    assert "--baseline · is not plain: base, other come first" in capsys.readouterr().err


def test_nothing_judged_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"output_1": "a", "generator_1": "b", "output_2": "b", "generator_2": "t", "annotator": "j"}
    games = [{"swapped": swapped, "preference": None, "weight": 1} for swapped in (False, True)]
    for name, more, said in (
        ("null", {}, "no judgement holds a verdict: unparsed 3"),
        ("games", {"games": games, "problem": "too_long"}, "no judgement holds a verdict: too_long 3"),
    ):
        rows = [{"instruction": f"q{row}", "preference": None} | about | more for row in range(3)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        call = ["compare", str(tmp_path / f"{name}.json"), "--output", str(tmp_path / "c")]
        assert cli.main(call) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
