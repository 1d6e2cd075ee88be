"""Find where in a response the preference is decided, how deep the signal goes, and how much is worth keeping.

Without --model, a bag of words reads every prefix: no model, no torch, seconds. With a reward model, or a policy and
its reference, every prefix is read in one forward pass a pair, and the words stand beside it as a control. A reward
model that was trained on whole responses has been taught to read their ends only: its curve is a lower bound. What it
says of a span without its beginning takes a pass of its own, so it reads other parts of the same size at few ratios.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from rich.table import Table

from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog
from headwater.data.published import published_points
from headwater.data.reading import ReadOptions
from headwater.data.splitting import unseen
from headwater.data.templates import renders_conversations
from headwater.data.tokens import TOKENS_PER_PASS, EncodeOptions, EndToken
from headwater.data.truncation import Truncation, parse_keep
from headwater.errors import UsageError
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.signal.curves import Curves, Grid
    from headwater.signal.depth import Advice
    from headwater.signal.prefix_scorers import Ints, PrefixScorer

EXAMPLE = "headwater signal pairs.jsonl"
CURVES = "curves.json"
"""In the run: every point that was measured, with n and interval."""
MODEL_FLAGS = ("reference", "beta", "reward_head", "tokens_per_pass", "end", "max_length", "span_ratios")
SPAN_RATIOS = ("20%", "50%")

HELP = {
    "Input": ("data", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Model": ("model", "reference"),
    "Measurement": ("ratios", "amounts", "margin", "max_length", "tokens_per_pass", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater signal`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub."""
    output: Path | None = None
    """Directory of the run. Default: ./DATA-signal, or ./DATA-signal-by-MODEL."""
    model: str | None = None
    """Reward model, or policy with its reference, that scores the prefixes. Default: a bag of words trained on the
    data."""
    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    ratios: tuple[str, ...] = ("5%", "10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%")
    """Kept ratios to measure accuracy at, besides 100%."""
    amounts: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Kept amounts to measure accuracy at: tokens, or words without a model."""
    span_ratios: tuple[str, ...] | None = None
    """Kept ratios at which a reward model also scores the end, the middle and a random span; without a value, none.
    Default: 20% 50%."""
    margin: float = 1.0
    """Percentage points of accuracy that the recommended ratio may lose."""
    published: str | None = None
    """Curve to draw behind, as FILE.json:NAME, where NAME holds [kept share or tokens, accuracy] pairs."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never. Default: as in training, or
    complete."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of the model if that is less."""
    tokens_per_pass: int | None = None
    """Maximum number of tokens in one forward pass of a model. Changes memory use, not the result. Default: 8192."""
    allow_leakage: bool = False
    """Measure on pairs whose prompts the model was trained on, too."""
    seed: int = 42
    """Random seed of folds, random spans, shuffles and bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        given = [name for name in MODEL_FLAGS if getattr(self, name) is not None]
        given += ["allow_leakage"] if self.allow_leakage else []
        if self.model is None and given:
            flag = f"--{given[0].replace('_', '-')}"
            raise UsageError(flag, "is about a model", "name one with --model")
        if self.beta is not None and self.beta <= 0:
            raise UsageError(f"--beta {self.beta:g}", "expected a value above 0", "such as 0.1")
        if self.margin <= 0:
            raise UsageError(f"--margin {self.margin:g}", "expected points of accuracy above 0", "such as 1")
        if any(amount < 1 for amount in self.amounts):
            raise UsageError("--amounts", "expected whole numbers above 0")


class Subject(NamedTuple):
    """What is measured: preferences, what reads them, and what is known of it."""

    preferences: list[Preference]
    read: Callable[[], PrefixScorer]
    prompts: Ints  # [pairs] length of every prompt, in the ruler's unit
    facts: dict[str, Any]


@renders_conversations
def run(config: Config) -> Path:
    """Measure the curves, print what they say and return the run directory."""
    from headwater.signal.curves import groups_of, measure
    from headwater.signal.depth import advise, figures

    output = config.output or _default_output(config)
    runs.check_free(output, config.overwrite, config)
    head = _head(config)
    spans = (SPAN_RATIOS if config.span_ratios is None else config.span_ratios) if head == "reward" else ()
    grid = _grid(config, spans)
    published = _published(config.published) if config.published else []
    loaded = reading.load(config.data, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    if head is None:
        subject = _by_words(config, loaded.preferences)
    else:
        at = [parse_keep(text) for text in spans]
        read_apart = [span for span in grid.spans() if span.keep in at]
        subject = _by_model(config, head, loaded.preferences, read_apart, prep_log)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)

    facts = runs.facts_of(config.data) | subject.facts
    writer = runs.start(output, "signal", config, inputs=loaded.files, facts=facts)
    writer.count_stages(prep_log.stages)
    loaded.quarantine.save(writer.path / reading.QUARANTINE)
    prefix_scorer = subject.read()
    groups = groups_of(subject.preferences, prefix_scorer.lengths)
    curves = measure(prefix_scorer, _conversation_ids(subject), groups.members, grid)
    advice = advise(curves, grid.ratios, config.margin / 100)
    metrics = figures(curves, grid.ratios)
    rows = list(curves.rows(prefix_scorer.unit))
    rows += _words_beside(subject, grid) if config.model else []
    rows += [row | {"unit": row["unit"] or prefix_scorer.unit} for row in published]

    writer.facts |= _facts(prefix_scorer, subject.prompts, curves, advice)
    writer.facts |= {"published": config.published} if config.published else {}
    writer.facts |= {"margin": config.margin / 100, "groups_too_small": groups.too_small}
    writer.write_metrics(metrics)
    files.write_json(writer.path / CURVES, rows)
    writer.write_records(_records(subject.preferences, prefix_scorer, curves, grid.ratios))
    _show(rows, metrics, writer.facts)
    return writer.finish()


def _conversation_ids(subject: Subject) -> list[str]:
    return [preference.conversation_id for preference in subject.preferences]


def _default_output(config: Config) -> Path:
    name = f"{config.data.name.split('.')[0]}-signal"
    return Path(f"{name}-by-{Path(config.model).name}" if config.model else name)


def _head(config: Config) -> str | None:
    """Say whether the model is a reward model or a policy; None without one. Errors: `UsageError`."""
    if config.model is None:
        return None
    from headwater.signal import passes

    head = passes.head_of(config.model)
    for name in ("reference", "beta"):
        if head == "reward" and getattr(config, name) is not None:
            raise UsageError(f"--{name}", f"{config.model} is a reward model", f"leave --{name} out")
    if head == "policy" and config.span_ratios is not None:
        problem = f"{config.model} is a policy, whose one pass tells every span"
        raise UsageError("--span-ratios", problem, "leave it out")
    return head


def _grid(config: Config, spans: Sequence[str]) -> Grid:
    """Return where curves are measured; the ratios of `spans` are among them. Errors: `UsageError`."""
    from headwater.signal.curves import Grid

    grid = Grid(_ratios([*config.ratios, *spans]), tuple(sorted(set(config.amounts))), seed=config.seed)
    if config.model is None:  # words learn anew for every cut: a selection keeps that to seconds
        return dataclasses.replace(grid, cuts=("own", "equal"), parts=("suffix", "random-span"))
    return grid


def _ratios(texts: Sequence[str]) -> tuple[Fraction, ...]:
    """Read `--ratios`, ascending and with 1 at the end. Errors: `UsageError`."""
    keeps = [parse_keep(text) for text in texts]
    other = next((text for text, keep in zip(texts, keeps, strict=True) if keep.unit != "ratio"), None)
    if other:
        raise UsageError(f"--ratios {other}", "is not a ratio", "amounts of tokens go to --amounts")
    found = tuple(sorted({keep.amount for keep in keeps} | {Fraction(1)}))
    if len(found) < 2:
        raise UsageError("--ratios", "holds nothing below 100%", "name ratios to compare with it, such as 25% 50%")
    return found


def _published(text: str) -> list[dict[str, Any]]:
    """Read `--published FILE.json:NAME` as points without n or interval; a curve beyond 1 counts tokens.

    Errors: `UsageError`.
    """
    points = published_points(text)
    unit = "ratio" if all(x <= 1 for x, _ in points) else None
    empty = {"low": None, "high": None, "n": None, "clusters": None}
    where = {"curve": "published", "cut": "own", "unit": unit, "group": "all"}
    return [where | {"amount": x, "value": y} | empty for x, y in points]


def _by_words(config: Config, preferences: list[Preference]) -> Subject:
    from headwater.data import segmentation
    from headwater.signal.words import Words

    say("ruler: a bag of words, cross-fitted; --model takes a reward model or a policy")
    prompts = [sum(len(segmentation.ends(m.content, "word")) for m in p.prompt) for p in preferences]
    prefix_scorer = Words.read(preferences, config.seed)
    return Subject(preferences, lambda: prefix_scorer, np.array(prompts, dtype=np.int64), {"kind": "words"})


def _by_model(
    config: Config, head: str, preferences: list[Preference], spans: Sequence[Truncation], prep_log: PrepLog
) -> Subject:
    from headwater.models.turn_ends import end_rule
    from headwater.signal import passes

    model = str(config.model)
    trained = runs.facts_of(Path(model))
    if not config.allow_leakage:
        preferences, prep_log.stages["leakage"] = unseen(preferences, runs.trained_on(Path(model)))
    encode_options = EncodeOptions(Truncation(), config.end or end_rule(model), config.max_length)
    request = passes.Request(
        preferences,
        encode_options,
        config.tokens_per_pass or TOKENS_PER_PASS,
        config.seed,
        prep_log,
        spans,
        config.reward_head,
    )
    if head == "reward":
        prepared = passes.reward_model(model, request)
    else:
        prepared = passes.policy_and_reference(model, config.reference, config.beta or 0.1, request)
    facts = {"kind": trained.get("kind", "reward model" if head == "reward" else "policy"), "end": encode_options.end}
    facts["training_flops_a_token"] = 6 * prepared.parameters
    prompts = np.array([len(pair.prompt) for pair in prepared.pairs], dtype=np.int64)
    return Subject([preferences[pair.row] for pair in prepared.pairs], prepared.read, prompts, facts)


def _words_beside(subject: Subject, grid: Grid) -> list[dict[str, Any]]:
    """Measure the words ruler on the pairs that a model has read: what needs no model to be seen."""
    from headwater.signal.curves import measure
    from headwater.signal.words import Words

    if len(set(_conversation_ids(subject))) < Words.least_openings:
        say(f"control: too few openings for the words ruler, which takes {Words.least_openings} or more")
        return []
    own = dataclasses.replace(grid, amounts=(), cuts=("own",), parts=(), shuffles=0)
    curves = measure(Words.read(subject.preferences, grid.seed), _conversation_ids(subject), {}, own)
    return [row | {"curve": "words"} for row in curves.rows(Words.unit) if row["curve"] == "accuracy"]


def _facts(prefix_scorer: PrefixScorer, prompts: Ints, curves: Curves, advice: Advice) -> dict[str, Any]:
    """Return what later steps and the report should know."""
    from headwater.signal.depth import training_saved

    saved = None if advice.keep is None else training_saved(prompts, prefix_scorer.lengths, advice.keep)
    return {
        "unit": prefix_scorer.unit,
        "verdict": advice.verdict,
        "recommended_keep": None if advice.keep is None else str(float(advice.keep)),
        "recommended_flops_saved": saved,
        "says": advice.sentence + (f" It saves {100 * saved:.0f} % of the FLOPs of training." if saved else ""),
        "shuffled": [float(curves.shuffled.min()), float(curves.shuffled.max())],
        "shuffles": len(curves.shuffled),
    }


def _records(
    preferences: Sequence[Preference], prefix_scorer: PrefixScorer, curves: Curves, ratios: Sequence[Fraction]
) -> list[dict[str, object]]:
    """Return one row a pair: lengths, and the margins of the chosen response at every ratio."""
    unit = prefix_scorer.unit
    lengths, names = prefix_scorer.lengths.tolist(), [f"{float(ratio):g}" for ratio in ratios]
    return [
        {
            "id": preference.id,
            "source": preference.source,
            "opening": preference.conversation_id,
            f"chosen_{unit}": chosen,
            f"rejected_{unit}": rejected,
            **{f"margin_at_{name}": float(value) for name, value in zip(names, margins, strict=True)},
        }
        for preference, (chosen, rejected), margins in zip(preferences, lengths, curves.margins, strict=True)
    ]


BESIDE = {"length": "longer wins", "words": "words alone"}
"""What stands beside the curve in the first printed table, and what heads it."""
CONTROLS = {
    "length-flip": "labels turned with length",
    "suffix": "end",
    "middle": "middle",
    "random-span": "random span",
}
"""What stands in the second one: accuracy where a label turns with the longer response, and of other parts."""


def _show(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Estimate], facts: Mapping[str, Any]) -> None:
    """Print the curve of own cuts beside its controls, the depths, and what follows."""
    curves: dict[str, dict[float, Mapping[str, Any]]] = {}
    for row in rows:
        if (row["cut"], row["unit"], row["group"]) == ("own", "ratio", "all"):
            curves.setdefault(row["curve"], {})[row["amount"]] = row
    title = f"accuracy by kept share of {facts['unit']}, n = {metrics['accuracy'].n}"
    show(_table(title, curves, BESIDE, ("accuracy", f"{LEVEL:.0%} interval")))
    show(_table("controls: accuracy at the same share", curves, CONTROLS))
    for name, depth in metrics.items():
        if name.startswith("depth_") and depth.low is not None and depth.high is not None:
            share = name.removeprefix("depth_")
            found = f"{100 * depth.value:g} % [{100 * depth.low:g} %, {100 * depth.high:g} %]"
            show(f"D{share}: the first {found} of a response hold {share} % of its signal")
    low, high = facts["shuffled"]
    show(f"shuffled labels: {low:.4f} to {high:.4f} in {facts['shuffles']} shuffles")
    show(f"\n{facts['says']}")


def _table(
    title: str,
    curves: Mapping[str, Mapping[float, Mapping[str, Any]]],
    named: Mapping[str, str],
    own: Sequence[str] = (),
) -> Table:
    """Return a line a kept share: the curve's own two columns, if they are asked for, and those of `named` curves."""
    beside = {name: curves[name] for name in named if name in curves}
    table = Table("kept", *own, *(named[name] for name in beside), title=title, title_justify="left")
    for amount, row in curves["accuracy"].items():
        point = Estimate(*(row[name] for name in Estimate._fields))
        cells = [f"{point.value:.4f}", point.interval()] if own else []
        others = [f"{curve[amount]['value']:.4f}" if amount in curve else "" for curve in beside.values()]
        table.add_row(f"{100 * amount:.4g} %", *cells, *others)
    return table
