"""The end of a command on a terminal: the figures that came out, where the result is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headwater.data import reading
from headwater.errors import HeadwaterError
from headwater.reporting.findings import CHANCE, estimate, number, with_interval
from headwater.results import runs
from headwater.results.evaluation import better_rule
from headwater.results.runs import Run
from headwater.results.training import Column, TrainingFigures
from headwater.statistics import Estimate

SHOWN = 3
"""Most figures of an ending."""


class Ending(NamedTuple):
    """What the end of a command shows."""

    figures: Mapping[str, str]
    """Metrics, and what they are called; a name that ends in / or _ stands for all that begin so. Three are shown."""
    following: Callable[[Run, Path], str]
    """Returns the command to type next, from the run and the path that the command returned."""


def ending(result: Any) -> list[str]:
    """Return the last lines of a command that returned `result`; [] for one that returned no path."""
    if not isinstance(result, Path):
        return []
    if result.suffix == ".html":
        return [f"written: {result}", f"next: open {_quoted(result)} in a browser"]
    home = runs.home_of(result)
    if not (home / "done").is_file():
        return []
    run, result = runs.load(home), _with_shards(result)
    known = ENDINGS.get(run.command)
    if known is None:
        return [f"written: {result}"]
    figures = list(_figures(run, known.figures))[:SHOWN]
    lines = [" · ".join(figures)] if figures else []
    return [*lines, *_warnings(run), f"written: {result}", f"next: {known.following(run, result)}"]


def _figures(run: Run, names: Mapping[str, str]) -> Iterator[str]:
    if accuracy := _held_out(run):
        yield f"held-out accuracy {with_interval(accuracy)}, n {accuracy.n:,}"
    for name, words in names.items():
        for metric in (each for each in run.metrics if each == name or (name[-1] in "/_" and each.startswith(name))):
            called = f"{words} {metric.removeprefix(name)}".strip()
            found, plain = estimate(run, metric), run.metrics[metric]
            if found and metric == "length_accuracy":
                called, found = f"{better_rule(found).wins} wins", better_rule(found).accuracy
            if found:
                yield f"{called} {with_interval(found)}, n {found.n:,}"
            elif isinstance(plain, int | float):
                yield f"{called} {plain:,}" if isinstance(plain, int) else f"{called} {number(plain)}"


def _held_out(run: Run) -> Estimate | None:
    """Return the held-out accuracy of a training run; None for other runs, and where nothing was held out."""
    found = TrainingFigures.find(run.path) if run.history else None
    if found is None or found.accuracy is None:
        return None
    n = found.held_out_pairs or 0
    return Estimate(found.accuracy, found.accuracy_low, found.accuracy_high, n, n)


def _warnings(run: Run) -> Iterator[str]:
    """Yield that a reward model is no better than chance, or over-fitted, with two things to try."""
    accuracy = _held_out(run) if run.command == "train-reward" else None
    if accuracy is None:
        return
    if accuracy.low is not None and accuracy.low <= CHANCE:
        yield (
            f"the held-out accuracy is not above chance ({CHANCE}) with 95 % confidence: "
            "try more pairs, or a larger or pretrained --model"
        )
    elif _fell(run, accuracy.value):
        yield (
            "the held-out accuracy fell below the interval of its best value while accuracy in training rose: "
            "try fewer --num-train-epochs, or --early-stopping-patience 2"
        )


def _fell(run: Run, final: float) -> bool:
    """Say whether held-out accuracy is below the interval of its best value in the end, and training accuracy rose."""
    name = Column.ACCURACY.held_out
    held_out = [row for row in run.history if row.get(name) is not None]
    training = run.training_history.values(Column.ACCURACY)
    if len(held_out) < 2 or len(training) < 2:
        return False
    low = max(held_out, key=lambda row: float(row[name])).get(f"{name}_low")
    return low is not None and final < float(low) and training[-1] > training[0]


def _quoted(path: object) -> str:
    return shlex.quote(str(path))


def _with_shards(result: Path) -> Path:
    """Return the pattern of the shards that stand for a file; any other path as it is."""
    return result if result.exists() else result.with_name(f"{result.stem}-*-of-*{result.suffix}")


def _folder(result: Path) -> Path:
    """Return the folder in which the next output may lie: that of the run, and never the run itself."""
    return runs.home_of(result).parent


def layout_flags(layout: str | None, columns: str | None) -> list[str]:
    """Return the flags of a layout that was named or described, for a command line that reads the same data."""
    return [f"{flag} {_quoted(value)}" for flag, value in (("--layout", layout), ("--columns", columns)) if value]


def _data(run: Run) -> str:
    """Return the data that a run read, for a command line, with the description of its layout."""
    found = next((run.config[name] for name in ("data", "dataset", "input", "prompts") if run.config.get(name)), "DATA")
    return " ".join([_quoted(found), *layout_flags(run.config.get("layout"), run.config.get("columns"))])


def _shown(run: Run, result: Path) -> str:
    return f"headwater report {_quoted(result)}"


def _sft(run: Run, result: Path) -> str:
    return f"headwater train-dpo {_data(run)} --model {_quoted(result)} --output {_quoted(_folder(result) / 'dpo')}"


def _trained(run: Run, result: Path) -> str:
    return f"headwater evaluate {_quoted(result)} {_data(run)}"


def _evaluated(run: Run, result: Path) -> str:
    model = Path(str(run.config.get("model")))
    trained = f"{_quoted(model)} " if (model / "environment.json").is_file() else ""
    return f"headwater report {trained}{_quoted(result)}"


def _kind_of_rows(data: Path) -> str:
    """Return what the rows of data are; pairs where it cannot be read, since no hint may fail a finished command."""
    try:
        rows = reading.stream(data)
        next(rows, None)
    except HeadwaterError:
        return "preferences"
    return rows.yields


def _written(run: Run, result: Path) -> str:
    """Train on the rows that were written, or make pairs of them first where they hold several responses each."""
    kind = _kind_of_rows(result)
    if kind == "candidates":
        pairs = _quoted(_folder(result) / "pairs.jsonl")
        return f"headwater select {_quoted(result)} --budget 100% --pairs best_worst --output {pairs}"
    loss = ' --loss "kto()"' if kind == "unpaired" else ""
    return f"headwater train-dpo {_quoted(result)}{loss} --output {_quoted(_folder(result) / 'dpo')}"


def _drawn(run: Run, result: Path) -> str:
    if (runs.home_of(result) / "records.parquet").is_file():
        return f"headwater select {_quoted(result)} --output {_quoted(_folder(result) / 'selected.jsonl')}"
    scored = _quoted(_folder(result) / "scored.jsonl")
    return f"headwater score {_quoted(result)} --model REWARD_MODEL --output {scored}"


def _inspected(run: Run, result: Path) -> str:
    return f"headwater inspect {_quoted(result)}"


def _page(run: Run, result: Path) -> str:
    return f"open {_quoted(result / 'lens.html')} in a browser"


def _answered(run: Run, result: Path) -> str:
    """The answers of the first model are the baseline of the others'."""
    models = [name.removeprefix("tokens/") for name in run.metrics if name.startswith("tokens/")]
    answers = [_quoted(result / f"{model.strip('/').replace('/', '-')}.json") for model in models]
    baseline, others = answers[:1] or ["BASELINE.json"], answers[1:] or ["OTHER_ANSWERS.json"]
    judge = "\"reward(model='REWARD_MODEL')\""
    judged = _quoted(_folder(result) / "judged")
    return f"headwater judge {' '.join(others)} --baseline {baseline[0]} --judge {judge} --output {judged}"


def _judged(run: Run, result: Path) -> str:
    return f"headwater compare {_quoted(result)} --output {_quoted(_folder(result) / 'compared')}"


def _measured(run: Run, result: Path) -> str:
    keep = run.facts.get("recommended_keep")
    if keep is None:
        return _shown(run, result)
    return f"headwater preprocess {_data(run)} --keep {float(keep):g} --output cut.jsonl"


_TRAINED = {"eval_auc": "held-out AUC", "eval_rewards/margins": "margin", "eval_loss": "held-out loss"}

ENDINGS: Mapping[str, Ending] = {
    "preprocess": Ending(
        {"tokens_before": "response tokens before", "tokens_after": "after", "flops_saved": "share of FLOPs saved"},
        _written,
    ),
    "sample": Ending({"responses": "responses", "complete": "complete", "different": "different"}, _drawn),
    "select": Ending(
        {"taken": "rows selected", "score_taken": "their score", "score_all": "score of all"},
        _written,
    ),
    "train-sft": Ending(_TRAINED, _sft),
    "train-reward": Ending(_TRAINED, _trained),
    "train-dpo": Ending(_TRAINED, _trained),
    "evaluate": Ending(
        {"accuracy": "accuracy", "auc": "AUC", "length_accuracy": "", "margin_mean": "margin"}, _evaluated
    ),
    "score": Ending({"responses": "responses", "reward_mean": "mean", "reward_std": "standard deviation"}, _inspected),
    "generate": Ending({"tokens/": "tokens an answer of", "capped/": "cut off, share of"}, _answered),
    "judge": Ending({"win_rate/": "win rate,"}, _judged),
    "compare": Ending({"lc_win_rate/": "length-controlled win rate,", "win_rate/": "win rate,"}, _shown),
    "reward-bench": Ending({"section_average": "average of sections", "accuracy": "accuracy"}, _shown),
    "signal": Ending({"accuracy": "accuracy", "depth_90": "signal depth (90 %)", "length_accuracy": ""}, _measured),
    "sweep": Ending({"rank_correlation_": "rank correlation"}, _shown),
    "divergence": Ending(
        {"kl_a_response": "KL a response, nats", "kl_share_of_first_10": "share of the first 10 tokens"}, _shown
    ),
    "decode": Ending(
        {"reward_": "reward", "kl": "KL a response, nats", "response_tokens": "tokens a response"}, _shown
    ),
    "lens": Ending({}, _page),
    "frontier": Ending({"recommended_by_": "recommended by", "reward_": "reward by", "kl_": "KL by"}, _shown),
}
"""Endings by the command that wrote the run."""
