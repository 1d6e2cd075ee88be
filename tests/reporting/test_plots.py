from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import vl_convert

from headwater.files import write_json
from headwater.reporting.findings import findings
from headwater.reporting.page import render
from headwater.reporting.plots import PLOTS
from headwater.reporting.plots.drawing import COLOURS
from headwater.reporting.plots.training import MAX_POINTS
from headwater.results import runs
from headwater.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "m"


def evaluated(path: Path, keep: float = 1.0, *, what: str = "", shift: float = 0.0, n: int = 40) -> runs.Run:
    facts = {"keep": keep, "kind": "reward model", "planted_depth": 0.3}
    writer = runs.start(path, "evaluate", Config(), facts=facts)
    if not what:
        writer.write_metrics({"accuracy": Estimate(0.5 + keep / 3, 0.4 + keep / 3, 0.6 + keep / 3, 40, 40)})
    else:
        values = np.random.default_rng(0).normal(size=(n, 2)) + shift
        rewards = {"chosen_reward": None, "rejected_reward": None}  # every evaluation has these columns
        writer.write_records([rewards | {f"chosen_{what}": a, f"rejected_{what}": b} for a, b in values.tolist()])
    return runs.load(writer.finish())


def trained(path: Path, *columns: str, command: str = "train-dpo", steps: int = 5) -> runs.Run:
    writer = runs.start(path, command, Config())
    for step in range(steps):
        writer.log({"step": step, **{column: 0.1 * step for column in columns}})
    return runs.load(writer.finish())


def test_what_tells_of_displacement_and_of_labels_is_drawn(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", "rewards/auc", "eval_rewards/auc", "logps/chosen_change")
    titles = [panel.title for block in PLOTS["rewards"].draw([run]) for panel in block.panels]
    assert titles == ["Chosen log-probability", "Desirable rewarded more"]


def compared(path: Path, scored: bool = True) -> runs.Run:
    """A run as `compare` leaves it: one model under two judges, of which one gives scores."""
    writer = runs.start(path, "compare", Config(), facts={"says": ["By rm, dpo is better than sft: win rate 0.7."]})
    rates = {"rm/dpo": Estimate(0.7, 0.6, 0.8, 40, 40), "llm/dpo": Estimate(0.4, 0.3, 0.5, 40, 40)}
    writer.write_metrics(
        {f"win_rate/{name}": rate for name, rate in rates.items()} | {"lc_win_rate/rm/dpo": rates["rm/dpo"]}
    )
    both = {"model": "dpo", "baseline": "sft", "category": "", "model_length": 30, "baseline_length": 20}
    rows = [
        {**both, "judge": judge, "prompt": str(i), "preference": i / 39}
        | {"model_score": i - 10.0 if judge == "rm" and scored else None}
        | {"baseline_score": 1.0 if judge == "rm" and scored else None}
        for judge in ("rm", "llm")
        for i in range(40)
    ]
    writer.write_records(rows)
    case = {"prompt": "Why <b>?", "preference": 1.0, "scores": [1.0, 29.0], "baseline": "no", "model": "because"}
    examples = [{"judge": "runs/rm", "model": "dpo", "improved": [case], "degraded": []}]
    write_json(path / "comparison.json", {"examples": examples})
    return runs.load(writer.finish())


def ranked(path: Path) -> runs.Run:
    """A run as `compare` leaves it: three models under two judges, of whom one saw all of them meet."""
    writer = runs.start(path, "compare", Config(), facts={"says": []})
    strengths = {"sft": Estimate(0.0, 0.0, 0.0, 90, 30), "dpo": Estimate(1.0, 0.5, 1.5, 90, 30)}
    strengths["kto"] = Estimate(-0.5, None, None, 90, 1)
    writer.write_metrics(
        {f"strength/runs/rm/{model}": strength for model, strength in strengths.items()}
        | {f"{figure}/runs/rm ~ llm": Estimate(0.4, 0.2, 0.6, 30, 30) for figure in ("kappa", "rank")}
    )
    met = [("dpo", "sft", 0.75), ("sft", "dpo", 0.25), ("kto", "sft", 0.4), ("sft", "kto", 0.6)]
    beaten = [{"judge": "runs/rm", "model": a, "opponent": b, "share": share, "n": 30} for a, b, share in met]
    beaten += [{"judge": "llm", "model": a, "opponent": b, "share": share, "n": 30} for a, b, share in met[:2]]
    write_json(path / "comparison.json", {"examples": [], "win_matrix": beaten})
    return runs.load(writer.finish())


def selected(path: Path) -> runs.Run:
    """A run as `select` leaves it; some rows have no score."""
    writer = runs.start(path, "select", Config(), facts={"selected_by": "pvar", "selected_end": "top"})
    rows = {"score": [0.0, 0.1, None, 0.2], "taken": [False, False, False, True], "reward_gap": [0.0, 1.0, None, 2.0]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path / "selection.parquet")
    baseline = {"other": "reward_gap", "chance": 0.25}
    figures = {
        "correlation": Estimate(0.9, 0.8, 1.0, 3, 3)._asdict(),
        "overlap": Estimate(1.0, None, None, 1, 1)._asdict(),
    }
    undefined = {"other": "flat", "chance": 0.25} | {
        name: Estimate(math.nan, None, None, 3, 3)._asdict() for name in figures
    }
    summary = {
        "by": "pvar",
        "sources": {"a": [3, 1], "b": [1, 0]},
        "agreement": [baseline | figures, undefined],
        "examples": {},
        "gradients": [{"bound": 0.4, "norm": 0.3, "taken": True}, {"bound": 0.2, "norm": 0.1, "taken": False}],
    }
    write_json(path / "selection.json", summary)
    return runs.load(writer.finish())


def signalled(path: Path, length: float = 0.45) -> runs.Run:
    facts = {"unit": "words", "says": "Keep the first 40 %.", "recommended_keep": "0.4", "planted_depth": 0.3}
    writer = runs.start(path, "signal", Config(), facts=facts)
    writer.write_metrics({"depth_90": Estimate(0.3, 0.2, 0.5, 40, 40)})
    points = [
        ("accuracy", "ratio", 0.1),
        ("accuracy", "ratio", 1.0),
        ("accuracy", "words", 5),
        ("length", "ratio", 1.0),
    ]
    rows = [
        {"curve": curve, "cut": "own", "unit": unit, "amount": amount, "group": group}
        | Estimate(length if curve == "length" else 0.6, 0.55, 0.65, 40, 40)._asdict()
        for curve, unit, amount in points
        for group in ("all", "turns: 1", "turns: 2", "source: only")
    ]
    write_json(path / "curves.json", rows)
    return runs.load(writer.finish())


def swept(path: Path) -> runs.Run:
    writer = runs.start(path, "sweep", Config())
    found = Estimate(0.7, 0.6, 0.8, 3, 3)._asdict()
    budgets = [(0.5, "examples"), (0.5, "tokens"), (1.0, "examples")]
    rows = [{"keep": k, "equal": e, "seen": s, "accuracy": found} for k, e in budgets for s in ("full", "same")]
    write_json(path / "sweep.json", {"rows": rows, "one_pass": [{"keep": 0.5, **found}, {"keep": 1.0, **found}]})
    return runs.load(writer.finish())


def diverged(path: Path) -> runs.Run:
    writer = runs.start(path, "divergence", Config(), facts={"along": "texts"})
    figures = [("kl_a_token", 1, 1), ("kl_a_token", 2, None), ("share", 1, 1), ("kl_a_response", 1, None)]
    rows = [
        {"estimator": estimator, "what": what, "first": first, "last": last} | Estimate(0.3, 0.2, 0.4, 40, 40)._asdict()
        for estimator in ("exact", "Monte-Carlo, 9 draws")
        for what, first, last in figures
    ]
    rows += [
        {"responses": responses, "what": "log_ratio_a_token", "first": first, "last": last}
        | Estimate(value, value - 0.1, value + 0.1, 40, 40)._asdict()
        for responses, value in (("chosen", 0.2), ("rejected", -0.3))
        for first, last in ((1, 1), (2, None))
    ]
    write_json(path / "divergence.json", rows)
    return runs.load(writer.finish())


def spoken(path: Path) -> runs.Run:
    """A run as `decode` leaves it: the policy said the first tokens."""
    writer = runs.start(path, "decode", Config(), facts={"strategy": "length_control(first=1)"})
    rows = [
        {"what": what, "first": first, "last": None, **Estimate(value, value, value, 9, 9)._asdict()}
        for what in ("policy_share", "kl")
        for first, value in ((1, 1.0), (2, 0.0))
    ]
    write_json(path / "positions.json", rows)
    return runs.load(writer.finish())


def frontiered(path: Path) -> runs.Run:
    """A run as `frontier` leaves it; the baseline has no gap to itself."""
    writer = runs.start(path, "frontier", Config())
    points = [("interpolate", 0.0, None), ("interpolate", 2.0, None), ("length_control", 1.0, 0.25)]
    rows = [
        {"reward_model": "rm/a", "name": f"{family}({kl})", "family": family, "setting": kl}
        | {"kl": Estimate(kl, kl, kl, 9, 9)._asdict(), "reward": Estimate(kl / 2, 0.0, 2.0, 9, 9)._asdict()}
        | {"gap": None if gap is None else Estimate(gap, None, None, 9, 9)._asdict()}
        for family, kl, gap in points
    ]
    write_json(path / "frontier.json", rows)
    return runs.load(writer.finish())


def diagnosed(path: Path) -> runs.Run:
    """A run as `evaluate` leaves it; the last group is too small for an interval."""
    writer = runs.start(path, "evaluate", Config())
    found = [Estimate(0.6, 0.5, 0.7, 40, 40)._asdict(), Estimate(1.0, None, None, 1, 1)._asdict()]
    groups = [{"from": -3.0 + k, "to": -2.5 + k} | each for k, each in enumerate(found)]
    summary = {
        "by_length_difference": groups,
        "by_margin": groups,
        "calibration_error": found[0],
        "reliability": [{"confidence": 0.55 + k / 3} | each for k, each in enumerate(found)],
        "examples": {},
    }
    write_json(path / "scrutiny.json", summary)
    return runs.load(writer.finish())


def embedded(path: Path) -> runs.Run:
    """A run as `inspect --embed` and `evaluate --embed` leave it."""
    writer = runs.start(path, "evaluate", Config())
    sides = ("chosen", "rejected")
    points = [
        {"id": f"p:{n}", "side": side, "pca": [n + shift, 0.0], "tsne": [0.1 * n, shift]}
        for n in range(10)
        for side, shift in zip(sides, (1.0, 0.0), strict=True)
    ]
    found = {"of": "last hidden states", "pairs": 10, "seed": 0, "explained": [0.5, 0.25], "points": points}
    write_json(path / "embedding.json", found)
    return runs.load(writer.finish())


def answered(path: Path) -> runs.Run:
    """A run as `generate` leaves it: two models, of which one repeats itself and is cut off."""
    writer = runs.start(path, "generate", Config())
    texts = {"sft": "one two three four five six", "dpo": "a b c d a b c d a b c d"}
    for model, text in texts.items():
        rows = [
            {"instruction": f"Why {i}?", "output": f"{text} {i}", "generator": model}
            | {"complete": model == "sft" or i % 2 == 0, "tokens": 10 + i}
            for i in range(8)
        ]
        write_json(path / f"{model}.json", rows)
    return runs.load(writer.finish())


def scored(path: Path, *models: str) -> runs.Run:
    """A run as `score` leaves it: the rewards of the same responses by several models."""
    writer = runs.start(path, "score", Config())
    writer.write_records(
        [
            {"id": f"p:{i}", "key": f"k{i}", "model": f"runs/{model}", "rewards": [float(i), i + place]}
            for place, model in enumerate(models)
            for i in range(6)
        ]
    )
    return runs.load(writer.finish())


NEEDS: dict[str, Callable[[Path], list[runs.Run]]] = {
    "accuracy": lambda p: [evaluated(p / "a", 0.3), evaluated(p / "b", 1.0)],
    "signal": lambda p: [signalled(p / "a")],
    "sweep": lambda p: [swept(p / "a")],
    "divergence": lambda p: [diverged(p / "a")],
    "decoded": lambda p: [spoken(p / "a")],
    "frontier": lambda p: [frontiered(p / "a")],
    "gradient-norm": lambda p: [trained(p / "a", "grad_norm")],
    "loss": lambda p: [trained(p / "a", "loss", "eval_loss")],
    "learning-rate": lambda p: [trained(p / "a", "learning_rate")],
    "rewards": lambda p: [trained(p / "a", "rewards/chosen", "rewards/accuracies")],
    "scores": lambda p: [evaluated(p / "a", what="reward")],
    "boxes": lambda p: [evaluated(p / "a", what="reward")],
    "lengths": lambda p: [evaluated(p / "a", what="tokens")],
    "embedding": lambda p: [embedded(p / "a")],
    "win-rates": lambda p: [compared(p / "a")],
    "strengths": lambda p: [ranked(p / "a")],
    "win-matrix": lambda p: [ranked(p / "a")],
    "judge-agreement": lambda p: [ranked(p / "a")],
    "answer-lengths": lambda p: [answered(p / "a")],
    "answer-faults": lambda p: [answered(p / "a")],
    "reward-models": lambda p: [scored(p / "a", "full", "half")],
    "score-differences": lambda p: [compared(p / "a")],
    "policy-scores": lambda p: [compared(p / "a")],
    "length-gain": lambda p: [compared(p / "a")],
    "diagnostics": lambda p: [diagnosed(p / "a")],
    "selection": lambda p: [selected(p / "a")],
    "selection-effects": lambda p: [selected(p / "a")],
    "selector-agreement": lambda p: [selected(p / "a")],
    "gradients": lambda p: [selected(p / "a")],
}


def drawn(section: str, given: list[runs.Run]) -> str:
    return "".join(
        vl_convert.vegalite_to_svg(panel.chart.to_dict(), allowed_base_urls=[])
        for block in PLOTS[section].draw(given)
        for panel in block.panels
    )


def specs(section: str, given: list[runs.Run]) -> str:
    return json.dumps([p.chart.to_dict() for b in PLOTS[section].draw(given) for p in b.panels])


def test_every_figure_has_a_case_here() -> None:
    assert set(NEEDS) == set(PLOTS)


@pytest.mark.parametrize("section", PLOTS)
def test_a_figure_is_drawn_with_its_data_and_absent_without(section: str, tmp_path: Path) -> None:
    svg = drawn(section, NEEDS[section](tmp_path))
    assert svg.startswith("<svg") and "NaN" not in svg
    assert " id=" not in svg  # ids of several drawings would clash in one page
    bare = runs.load(runs.start(tmp_path / "bare", "preprocess", Config()).finish())
    assert PLOTS[section].draw([bare]) == [] == PLOTS[section].draw([])


@pytest.mark.parametrize("section", PLOTS)
def test_a_figure_says_its_numbers_in_words(section: str, tmp_path: Path) -> None:
    panels = [panel for block in PLOTS[section].draw(NEEDS[section](tmp_path)) for panel in block.panels]
    assert all(any(character.isdigit() for character in panel.says) for panel in panels)


def test_the_accuracy_figure_marks_chance_and_the_planted_depth(tmp_path: Path) -> None:
    given = NEEDS["accuracy"](tmp_path)
    svg = drawn("accuracy", given)
    assert "chance 0.5" in svg and "planted depth 30 %" in svg
    assert ">0.0<" not in svg  # the axis begins near chance, or the curve is squeezed
    assert "30 % kept 0.600 [0.500, 0.700]" in PLOTS["accuracy"].draw(given)[0].panels[0].says
    assert PLOTS["accuracy"].draw(given[:1]) == []


def test_answers_of_models_share_an_axis_and_their_faults_are_counted(tmp_path: Path) -> None:
    (lengths,) = PLOTS["answer-lengths"].draw([answered(tmp_path / "a")])
    assert [mark.label for mark in lengths.key] == ["dpo", "sft"] and len(lengths.panels) == 1
    assert "dpo: mean length 13.5, n 8" in lengths.panels[0].says
    unfinished, repetition = PLOTS["answer-faults"].draw([answered(tmp_path / "b")])[0].panels
    assert "dpo 0.500 [" in unfinished.says and "sft 0.000 [0.000, 0.000], n 8" in unfinished.says
    assert "dpo 0.500 [0.500, 0.500], n 8" in repetition.says  # of 10 sequences, 5 are new
    assert "sft 0.000" in repetition.says


def test_reward_models_share_an_axis_where_they_scored_the_same_responses(tmp_path: Path) -> None:
    one, other = scored(tmp_path / "a", "full"), scored(tmp_path / "b", "half")
    (block,) = PLOTS["reward-models"].draw([one, other])
    assert [mark.label for mark in block.key] == ["full", "half"]
    assert PLOTS["reward-models"].draw([one]) == [], "one model is compared with nothing"


def test_losses_of_different_objectives_have_panels_of_their_own(tmp_path: Path) -> None:
    given = [trained(tmp_path / "a", "loss"), trained(tmp_path / "b", "loss")]
    given = [dataclasses.replace(run, facts={"kind": kind}) for run, kind in zip(given, ("dpo", "ipo"), strict=True)]
    assert [panel.title for panel in PLOTS["loss"].draw(given)[0].panels] == ["dpo", "ipo"]
    same = [dataclasses.replace(run, facts={"kind": "dpo"}) for run in given]
    assert [panel.title for panel in PLOTS["loss"].draw(same)[0].panels] == [""]


def test_a_run_that_would_stretch_the_axis_has_its_own(tmp_path: Path) -> None:
    given = []
    for name, size in (("a", 1.0), ("b", 1.1), ("wild", 90.0)):
        writer = runs.start(tmp_path / name, "train-dpo", Config())
        for step in range(5):
            writer.log({"step": step, "loss": size * step})
        given.append(runs.load(writer.finish()))
    usual, wild = PLOTS["loss"].draw(given)[0].panels
    assert wild.title == "wild, on its own axis" and "wild" not in usual.says
    evaluations = [evaluated(tmp_path / f"e{i}", what="reward") for i in range(3)]
    (block,) = PLOTS["scores"].draw(evaluations)
    assert not any("axis" in panel.title for panel in block.panels)


def test_a_single_evaluation_is_a_point(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "a", "train-dpo", Config())
    for step in range(5):
        writer.log({"step": step, "loss": 1.0 / (step + 1)})
    writer.log({"step": 4, "eval_loss": 0.3})
    assert '"type": "point"' in specs("loss", [runs.load(writer.finish())])


def test_scores_beyond_the_whiskers_are_points(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "a", "evaluate", Config())
    values = [*np.linspace(0, 1, 40).tolist(), 30.0]
    writer.write_records([{"chosen_reward": value, "rejected_reward": 0.0} for value in values])
    (block,) = PLOTS["boxes"].draw([runs.load(writer.finish())])
    drawn_rows = block.panels[0].chart.to_dict()["datasets"].values()
    assert [{"run": "a", "side": "chosen", "value": 30.0}] in list(drawn_rows)


def test_held_out_loss_is_dashed(tmp_path: Path) -> None:
    assert "stroke-dasharray" in drawn("loss", [trained(tmp_path / "a", "loss", "eval_loss")])
    assert "held-out" not in specs("loss", [trained(tmp_path / "b", "loss")]).replace('["training", "held-out"]', "")


def test_a_run_keeps_its_colour_in_every_figure(tmp_path: Path) -> None:
    given = [trained(tmp_path / "a", "loss"), trained(tmp_path / "b", "loss", "learning_rate")]
    loss, rate = (PLOTS[section].draw(given)[0].key for section in ("loss", "learning-rate"))
    assert [mark.label for mark in loss] == ["a", "b"] and [mark.label for mark in rate] == ["b"]
    assert loss[1].colour == rate[0].colour != loss[0].colour


def test_no_group_holds_more_runs_than_colours(tmp_path: Path) -> None:
    given = [trained(tmp_path / f"{i:02}", "loss") for i in range(len(COLOURS) * 2)]
    blocks = PLOTS["loss"].draw(given)
    assert [block.title for block in blocks] == ["train-dpo (1–6)", "train-dpo (7–12)"]
    assert all(len({mark.colour for mark in block.key}) == len(COLOURS) for block in blocks)


def test_long_histories_and_many_pairs_keep_the_drawing_small(tmp_path: Path) -> None:
    chart = specs("loss", [trained(tmp_path / "a", "loss", steps=5 * MAX_POINTS)])
    assert chart.count('"step":') == MAX_POINTS
    for section in ("scores", "boxes"):
        assert len(specs(section, [evaluated(tmp_path / section, what="reward", n=5000)])) < 12_000


def test_score_panels_share_an_axis_and_shares_sum_to_one(tmp_path: Path) -> None:
    given = [evaluated(tmp_path / "a", what="reward"), evaluated(tmp_path / "b", what="reward", shift=5.0)]
    (block,) = PLOTS["scores"].draw(given)
    layers: list[list[dict[str, Any]]] = [p.chart.to_dict()["layer"] for p in block.panels]
    domains = {tuple(layer["encoding"]["x"]["scale"]["domain"]) for panel in layers for layer in panel}
    assert len(domains) == 1
    datasets = block.panels[0].chart.to_dict()["datasets"].values()
    assert all(sum(row["share"] for row in rows) == pytest.approx(1.0) for rows in datasets)


def test_boxes_hold_the_quartiles(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "a", "evaluate", Config())
    writer.write_records([{"chosen_reward": float(v), "rejected_reward": 0.0} for v in (1, 2, 3, 4, 5, 100)])
    spec = PLOTS["boxes"].draw([runs.load(writer.finish())])[0].panels[0].chart.to_dict()
    (better, _worse) = next(iter(spec["datasets"].values()))
    assert (better["low"], better["first"], better["middle"], better["third"]) == (1.0, 2.25, 3.5, 4.75)
    assert better["high"] == 5.0  # 100 lies further than 1.5 box lengths away


def test_equal_lengths_are_drawn_once(tmp_path: Path) -> None:
    same = [evaluated(tmp_path / name, what="tokens") for name in "abc"]
    other = evaluated(tmp_path / "d", what="tokens", shift=1.0)
    (block,) = PLOTS["lengths"].draw([*same, other])
    assert [panel.title for panel in block.panels] == ["a and 2 more", "d"]


def test_missing_and_constant_scores_are_survived(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "a", "evaluate", Config())
    writer.write_records(
        [{"chosen_reward": None, "rejected_reward": 1.0}, {"chosen_reward": 1.0, "rejected_reward": 1.0}]
    )
    run = runs.load(writer.finish())
    assert "1 pairs" in PLOTS["scores"].draw([run])[0].panels[0].says
    assert "NaN" not in drawn("scores", [run]) + drawn("boxes", [run])


def test_a_selection_is_drawn_beside_all_rows(tmp_path: Path) -> None:
    given = [selected(tmp_path / "a")]
    (scores,) = PLOTS["selection"].draw(given)[0].panels
    assert "all rows 0.100 (n = 3), of those taken 0.200 (n = 1)" in scores.says
    gap, sources = PLOTS["selection-effects"].draw(given)[0].panels
    assert "reward gap" not in gap.says and "all rows 1.000 (n = 3)" in gap.says
    assert sources.says == "a: 75.0% of all rows, 100.0% of those taken; b: 25.0% of all rows, 0.0% of those taken"
    correlation, overlap = PLOTS["selector-agreement"].draw(given)[0].panels
    assert correlation.says == "Rank correlation: reward_gap 0.900 (n = 3)"  # what is undefined is not drawn
    assert overlap.says == "Share of the rows taken: reward_gap 1.000 (n = 1)"


def test_the_signal_figure_marks_the_depth_and_the_ratio_to_keep(tmp_path: Path) -> None:
    run = signalled(tmp_path / "a")
    blocks = PLOTS["signal"].draw([run])
    assert [block.title for block in blocks] == ["a: beginnings", "a: other parts of the same size"] + [
        f"a: by {what}" for what in ("whose length a response is cut", "words", "turns")
    ]
    spec = json.dumps(blocks[0].panels[0].chart.to_dict())
    assert "D90" in spec and "keep 40 %" in spec and "planted depth 30 %" in spec
    assert [mark.label for mark in blocks[0].key] == ["beginning", "shorter wins"]
    assert "shorter wins: accuracy 0.550 at 100" in blocks[0].panels[0].says
    longer = PLOTS["signal"].draw([signalled(tmp_path / "b", length=0.55)])
    assert [mark.label for mark in longer[0].key] == ["beginning", "longer wins"]
    assert findings([run]) == ["a: Keep the first 40 %."]


def test_a_sweep_draws_both_budgets_beside_one_pass(tmp_path: Path) -> None:
    full, same = PLOTS["sweep"].draw([swept(tmp_path / "a")])
    assert full.title == "a: judged on full responses" and same.title == "a: judged on the same beginnings"
    assert [mark.label for mark in full.key] == ["equal examples", "equal tokens", "one pass"]
    assert full.panels[0].says.count("0.700 at 100") == 3  # full responses end both budgets


def test_the_divergence_figure_names_its_estimators(tmp_path: Path) -> None:
    block, log_ratios = PLOTS["divergence"].draw([diverged(tmp_path / "a")])
    assert [mark.label for mark in block.key] == [
        "exact, along the data's responses",
        "Monte-Carlo, 9 draws, along the data's responses",
    ]
    assert [panel.says for panel in block.panels] == [
        "KL (nats a token) by position, exact: 0.300 at 1, 0.300 at 2; Monte-Carlo, 9 draws: 0.300 at 1, 0.300 at 2",
        "Share of its KL by position, exact: 0.300 at 1; Monte-Carlo, 9 draws: 0.300 at 1",
    ]
    assert [mark.label for mark in log_ratios.key] == ["chosen", "rejected"]
    assert "chosen: 0.200 at 1, 0.200 at 2; rejected: " in log_ratios.panels[0].says


def test_the_frontier_draws_reward_and_the_gap_to_the_baseline(tmp_path: Path) -> None:
    (block,) = PLOTS["frontier"].draw([frontiered(tmp_path / "a")])
    assert block.title == "a: reward by a"
    assert [mark.label for mark in block.key] == ["interpolation, the baseline", "length control"]
    assert [panel.says for panel in block.panels] == [
        "Reward by KL: interpolate(0.0) 0.000 at 0.000; length_control(1.0) 0.500 at 1.000; "
        "interpolate(2.0) 1.000 at 2.000",
        "Reward above the baseline by KL: length_control(1.0) 0.250 at 1.000",
    ]


def test_published_points_stand_behind_the_rewards_and_name_their_source(tmp_path: Path) -> None:
    run = frontiered(tmp_path / "a")
    write_json(tmp_path / "a" / "published.json", {"papers/fig4.json:baseline": [[0.5, -7.0], [2.0, -3.0]]})
    (block,) = PLOTS["frontier"].draw([run])
    assert block.key[-1].label == "published, fig4.json:baseline"
    assert ["-7.0" in str(panel.chart.to_dict()) for panel in block.panels] == [True, False]


def test_judges_that_give_no_scores_have_no_score_figures(tmp_path: Path) -> None:
    given = [compared(tmp_path / "a", scored=False)]
    assert PLOTS["score-differences"].draw(given) == [] == PLOTS["policy-scores"].draw(given)
    (block,) = PLOTS["win-rates"].draw(given)
    assert [panel.title for panel in block.panels] == ["by rm", "by llm"]
    assert "dpo win rate 0.400 [0.300, 0.500], n 40" in block.panels[1].says
    assert len(PLOTS["length-gain"].draw(given)[0].panels) == 2


def test_rankings_are_told_strongest_first(tmp_path: Path) -> None:
    given = [ranked(tmp_path / "a")]
    (panel,) = PLOTS["strengths"].draw(given)[0].panels
    assert panel.title == "by rm"
    told = "dpo 1.000 [0.500, 1.500], n 90; sft 0.000 [0.000, 0.000], n 90; "
    assert panel.says == told + "kto −0.500 [n too small for an interval], n 90"
    (panel,) = PLOTS["win-matrix"].draw(given)[0].panels
    assert panel.title == "by rm" and panel.says.startswith("dpo against sft 0.750; sft against dpo 0.250; kto")
    kappa, rank = PLOTS["judge-agreement"].draw(given)[0].panels
    assert kappa.says == "rm ~ llm 0.400 [0.200, 0.600], n 30" and rank.title.startswith("Rank correlation")


def test_scores_of_both_sides_are_told(tmp_path: Path) -> None:
    given = [compared(tmp_path / "a")]
    (panel,) = PLOTS["score-differences"].draw(given)[0].panels
    assert panel.says == "dpo, by rm: mean 8.500, share above 0 0.700, n 40"
    (panel,) = PLOTS["policy-scores"].draw(given)[0].panels
    assert panel.says == "dpo, by rm: median of model 9.500, median of baseline 1.000"
    assert "By rm, dpo is better than sft" in findings(given)[0]


def test_cases_and_figures_of_a_comparison_stand_on_the_page(tmp_path: Path) -> None:
    page = render([compared(tmp_path / "a")])
    assert "Most improved, most degraded" in page and "Why &lt;b&gt;?" in page and "reward 29.000" in page
    assert "lc win rate" in page and "rm / dpo" in page


def test_an_embedding_says_how_far_the_sides_lie_apart(tmp_path: Path) -> None:
    (block,) = PLOTS["embedding"].draw([embedded(tmp_path / "a")])
    assert block.title == "a: last hidden states" and [mark.label for mark in block.key] == ["chosen", "rejected"]
    pca, tsne = block.panels
    spread = np.std([n + shift for n in range(10) for shift in (0.0, 1.0)])
    assert pca.says == f"10 pairs; means of chosen and rejected lie {1 / spread:.2f} and 0.00 standard deviations apart"
    assert tsne.says.endswith("0.00 and 2.00 standard deviations apart")
    assert "First component (50 % of variance)" in json.dumps(pca.chart.to_dict())


def test_scores_before_training_have_panels_of_their_own(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "rm", "evaluate", Config(), facts={"kind": "reward model"})
    row = {
        "chosen_reward": 2.0,
        "rejected_reward": 1.0,
        "chosen_reward_untrained": 0.1,
        "rejected_reward_untrained": 0.0,
    }
    writer.write_records([row, row | {"chosen_reward": 3.0}])
    run = runs.load(writer.finish())
    for section in ("scores", "boxes"):
        assert [b.title for b in PLOTS[section].draw([run])] == ["Reward model", "Reward model, before training"]
    assert "median 0.10" in PLOTS["boxes"].draw([run])[1].panels[0].says
