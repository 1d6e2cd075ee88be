"""Choose the rows that can teach most, by preference variance or a rival, within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from headwater import files
from headwater.commands._flags import RunFlags
from headwater.config import POSITIONAL, build
from headwater.console import say, say_stages, show, track
from headwater.data import reading
from headwater.data import selection as picking
from headwater.data.preference import Candidates, Preference
from headwater.data.reading import ReadOptions, RowCounts, RowReader
from headwater.data.recorded import Recorded, RowName
from headwater.data.selection import (
    PAIRINGS,
    SELECTORS,
    Agreement,
    Budget,
    Choice,
    Effect,
    Floats,
    Harvest,
    Ints,
    Need,
    Pairing,
    Pool,
    PVar,
    Rewards,
    Scores,
    Selector,
    Take,
    tables,
)
from headwater.data.tokenizers import is_call, load_tokenizer
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.results.outputs import check_data_file, free_places
from headwater.statistics import Estimate, std

EXAMPLE = "headwater select --input ultrafeedback.jsonl --output selected.jsonl --by pvar --budget 10%"

HELP = {
    "Input": ("input", "split", "limit", "rewards"),
    "Output": ("output", "overwrite"),
    "Selection": ("by", "budget", "take", "pairs", "per_source", "drop_near_duplicates", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Flags of `headwater select`."""

    input: Annotated[Path, POSITIONAL]
    """Prompts with several responses, or pairs: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory."""
    by: str = "pvar(tau=1.0)"
    """Score that rows are ranked by, such as pvar(tau=1.0, scale="corpus"): the variance of the preference
    probability over the responses to a prompt.

    Also random(seed=0), reward_gap, uncertainty(tau=1.0), length_gap; with --likelihoods: likelihood; with
    --implicit: implicit_gap, dual_margin(low=-2.0), held_out_loss."""
    budget: str = "10%"
    """How much to select: 10% (of the prompts), 500prompts, 2000pairs, 1000000tokens or 5%tokens."""
    take: Take | None = None
    """Part of the ranking to select. Default: the part that the paper behind --by selects."""
    scores: Scores | None = None
    """Meaning of the scores in the data: rewards, probabilities of beating one common opponent, or log-likelihoods.
    Default: by layout, or as `headwater score` recorded it."""
    rewards: tuple[Path, ...] = ()
    """Runs of score, evaluate or sample whose rewards replace the scores of the data; several form an ensemble."""
    implicit: tuple[Path, ...] = ()
    """Runs of score or evaluate that scored this data with policies; adds their implicit rewards."""
    likelihoods: tuple[Path, ...] = ()
    """Runs of `headwater score --value mean_log_prob` (or log_prob) on this data."""
    pairs: str | None = None
    """How pairs are made of several responses: best_worst, best_random, random, all, sigma(k=2.0) or
    best_sigma(k=2.0)."""
    per_source: bool = False
    """Select from every source in proportion to its number of rows."""
    drop_near_duplicates: bool = False
    """Keep one of prompts that are nearly the same (MinHash, Jaccard similarity 0.8). Holds all prompts in memory."""
    tokenizer: str | None = None
    """Tokenizer in whose tokens lengths are measured: Hugging Face name or path. Default: characters."""
    export_for_annotation: Path | None = None
    """File to write the selected rows to for human annotation: responses shuffled, without labels (.jsonl, columns
    for Argilla)."""
    measure_gradients: int | None = None
    """Number of randomly drawn prompts whose DPO gradient under --policy is measured and compared with the score and
    with the bound set by preference variance."""
    policy: str | None = None
    """Policy whose gradients are measured: a training run, path or Hugging Face name."""
    seed: int = 42
    """Random seed of ties, draws and bootstrap intervals."""
    read_options: ReadOptions = field(default_factory=ReadOptions)


class Plan(NamedTuple):
    """The flags, understood."""

    selector: Selector
    budget: Budget
    take: Take
    pairing: Pairing | None


class Rows(NamedTuple):
    """What was read."""

    pool: Pool
    groups: list[int] | None
    """Near-duplicate prompts share a group, [rows]; None where that was not asked."""
    row_reader: RowReader
    scores: Scores
    models: list[str]
    """What scored, where rewards come from runs."""


def run(config: Config) -> Path:
    """Choose rows, write them and what they were chosen by, and return the data file."""
    plan = _plan(config)
    _check_files(config)
    target, home = free_places(config.output, config.input, config.overwrite, config)
    rows = _read(config)
    _check_needs(plan, rows, config)
    pool, row_counts = rows.pool, rows.row_reader.row_counts
    scores = plan.selector(pool)
    costs = picking.costs(pool, plan.budget.unit, plan.pairing, config.seed)
    choice = _choose(plan, rows, scores, costs, config)
    stages = {"read": row_counts, "select": RowCounts(len(pool), len(choice.rows), choice.dropped)}
    if not len(choice.rows):
        say_stages(stages)
        raise DataError(str(config.input), f"no row fits into --budget {config.budget}", "see the account above")

    writer = runs.start(home, "select", config, inputs=rows.row_reader.files, facts=_facts(plan, rows, config))
    rows.row_reader.quarantine.save(home / reading.QUARANTINE)
    harvest = Harvest(pool, scores, choice.rows, plan.pairing, config.seed, _rows_to_measure(config, pool))
    reading.write(target, harvest.records(reading.stream(config.input, config.read_options)))
    if config.export_for_annotation:
        picking.write_annotation(config.export_for_annotation, _records(reading.stream(target)), config.seed)
    if plan.pairing:
        stages["pairs"] = harvest.pairs
    writer.count_stages(stages)
    say_stages(stages)
    effects = picking.effects(pool, {"score": scores} | picking.columns_of(pool), choice.rows, config.seed)
    agreements = list(_agreements(plan, rows, scores, choice, config))
    gradients = _gradients(config, plan, pool, scores, choice, harvest) if config.policy else []
    figures = picking.gradient_figures(gradients, config.seed)
    writer.write_metrics(_metrics(pool, scores, choice, effects, config.seed) | figures)
    picking.write_scores(home / picking.SCORES, pool, plan.selector, scores, choice.rows)
    summary = {
        "by": config.by,
        "take": plan.take,
        "budget": config.budget,
        "unit": pool.unit,
        "agreement": [found.record() for found in agreements],
        "sources": picking.by_source(pool, choice.rows),
        "examples": harvest.examples(),
        "gradients": gradients,
    }
    files.write_json(home / "selection.json", summary)
    if choice.tied:
        say(f"ties: {choice.tied:,} rows left out have the score of the last one taken; --seed draws among them")
    title = f"{plan.take} of {config.by}: {len(choice.rows):,} of {len(pool):,} rows"
    show(tables.tables(title, effects, agreements, figures, harvest.examples()))
    writer.finish()
    say(f"written: {target}")
    return target


# --- the flags ----------------------------------------------------------------------------------------------------


def _plan(config: Config) -> Plan:
    """Understand the flags, and refuse those that cannot work or have no effect. Errors: `UsageError`."""
    selector = build(config.by, SELECTORS, "selector")
    budget = Budget.parse(config.budget)
    pairing = build(config.pairs, PAIRINGS, "pairing") if config.pairs else None
    if isinstance(selector, picking.Random) and config.take not in (None, "top"):
        raise UsageError(f"--take {config.take}", "has no effect on a random ranking", "leave it out")
    if config.scores and config.rewards:
        raise UsageError("--scores", "has no effect beside --rewards", "leave one out")
    if config.export_for_annotation and config.pairs:
        raise UsageError("--pairs", "labels what --export-for-annotation sends to be labelled", "leave one out")
    if budget.unit == "tokens" and not config.tokenizer:
        raise UsageError(f"--budget {config.budget}", "counts tokens", "name your model's with --tokenizer")
    if (config.measure_gradients is None) != (config.policy is None):
        given, lacking = ("--policy", "--measure-gradients") if config.policy else ("--measure-gradients", "--policy")
        raise UsageError(given, f"has no effect without {lacking}", "name both or none")
    if config.measure_gradients is not None and config.measure_gradients < 2:
        raise UsageError(f"--measure-gradients {config.measure_gradients}", "expected 2 prompts or more")
    return Plan(selector, budget, config.take or selector.takes, pairing)


def _check_files(config: Config) -> None:
    """Refuse a file for annotation that is taken, or of another format, and a model that is no policy."""
    export = config.export_for_annotation
    if export and export.suffix.lower() != ".jsonl":
        raise UsageError(f"--export-for-annotation {export}", "expected a name that ends in .jsonl")
    if export:
        home = runs.beside(config.output) if config.output.suffix else config.output
        check_data_file(export, home, config.overwrite, "--export-for-annotation")

    if config.policy and runs.facts_of(Path(config.policy)).get("kind") == "reward model":
        raise UsageError(f"--policy {config.policy}", "is a reward model", "name a policy")
    if config.policy:
        load_tokenizer(config.policy, ())  # a name that is none is refused before the work


_LACKING: dict[Need, tuple[str, str]] = {
    "pairs": ("needs pairs of a chosen and a rejected response", "this data holds candidates"),
    "rewards": ("needs rewards, and no response has one", "name runs that scored this data with --rewards"),
    "likelihood": ("needs log-likelihoods", "name runs of score --value mean_log_prob by --likelihoods"),
    "implicit": ("needs implicit rewards", "name runs that scored this data with policies by --implicit"),
}


def _check_needs(plan: Plan, rows: Rows, config: Config) -> None:
    """Refuse a plan that this data cannot serve. Errors: `UsageError`."""
    lacking = picking.lacking(plan.selector, rows.pool)
    if lacking:
        raise UsageError(f"--by {config.by}", *_LACKING[lacking])
    if plan.pairing and rows.pool.paired:
        raise UsageError(f"--pairs {config.pairs}", f"{config.input} holds pairs already", "leave it out")
    if plan.budget.unit == "pairs" and not (plan.pairing or rows.pool.paired):
        raise UsageError(f"--budget {config.budget}", "counts pairs, but none are made", "add --pairs best_worst")
    if plan.pairing and np.isnan(rows.pool.reward).all():
        raise UsageError(
            f"--pairs {config.pairs}", "nothing here says which response is better", _LACKING["rewards"][1]
        )
    if config.measure_gradients and not len(rows.pool.scored_rows()):
        raise UsageError("--measure-gradients", "no prompt has two responses with rewards", _LACKING["rewards"][1])
    _check_use("--implicit", config.implicit, "implicit", plan, config)
    _check_use("--likelihoods", config.likelihoods, "likelihood", plan, config)


def _check_use(flag: str, given: Sequence[Path], need: Need, plan: Plan, config: Config) -> None:
    if given and need not in plan.selector.needs:
        readers = ", ".join(name for name, selector in SELECTORS.items() if need in selector.needs)
        raise UsageError(flag, f"has no effect with --by {config.by}", f"it is for {readers}; see --rewards")


# --- what is read -------------------------------------------------------------------------------------------------


def _read(config: Config) -> Rows:
    """Read the rows into a pool. Errors: those of `reading.stream`, `DataError` for data that is no use here."""
    recorded = {
        kind: [recorded for path in paths for recorded in _recorded(path, kind)]
        for kind, paths in (
            ("rewards", config.rewards), ("implicit", config.implicit), ("likelihood", config.likelihoods)
        )
    }  # fmt: skip
    builder = picking.Builder(_measure(config.tokenizer), **recorded)
    prompts = picking.PromptGroups() if config.drop_near_duplicates else None
    row_reader = reading.stream(config.input, config.read_options)
    for record in _records(row_reader):
        builder.add(record)
        if prompts:
            prompts.add(record.prompt)
    if not row_reader.row_counts.kept:
        raise row_reader.no_usable_rows()
    scores = config.scores or _scores(row_reader, config.input)
    say(f"data: {row_reader.place} · {row_reader.layout}")
    pool = builder.pool(scores)
    unscored = int(np.isnan(pool.reward).sum())
    if not config.rewards and (scores == "likelihood" or unscored < len(pool.lengths)):
        what = {"probability": "logit of a probability", "likelihood": "log-likelihoods", "reward": "rewards"}[scores]
        say(f"scores: {what}, as the data has them")
    if unscored and scores != "likelihood":
        say(f"no reward: {unscored:,} of {len(pool.lengths):,} responses, left out of every comparison of rewards")
    return Rows(pool, prompts.groups() if prompts else None, row_reader, scores, [r.name for r in recorded["rewards"]])


def _scores(row_reader: RowReader, place: Path) -> Scores:
    """Say what the data's scores are: as the run that wrote it knows, or by its layout."""
    known: Scores | None = runs.facts_of(place).get("scores")
    by_layout: Scores = "probability" if row_reader.layout.split(" ")[0] in picking.PROBABILITIES else "reward"
    return known or by_layout


def _records(row_reader: RowReader) -> Iterator[Preference | Candidates]:
    for record in row_reader:
        if not isinstance(record, Preference | Candidates):
            raise DataError(
                row_reader.place, f"holds single responses with a label: {row_reader.layout}", "expected several"
            )
        yield record


def _measure(name: str | None) -> picking.Measure | None:
    """Return what counts tokens; None for characters."""
    if name is None:
        return None
    if is_call(name):
        raise UsageError(f"--tokenizer {name}", "is trained on data held in memory", "name a tokenizer that exists")
    tokenizer = load_tokenizer(name, ())
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _recorded(path: Path, kind: str) -> list[Rewards]:
    """Read the rewards that a run recorded, of every model that it scored with. Errors: `UsageError`."""
    run = runs.load(path)
    if kind == "implicit" and run.facts.get("kind") == "reward model":
        raise UsageError(f"--implicit {path}", "scored with a reward model", "name it with --rewards")
    likely = run.facts.get("scores") == "likelihood"
    if likely and kind != "likelihood":
        raise UsageError(f"--{kind} {path}", "recorded likelihoods", "name it with --likelihoods")
    if kind == "likelihood" and not likely:
        raise UsageError(f"--likelihoods {path}", "recorded rewards", "name a run of score --value mean_log_prob")
    models: dict[str, list[tuple[RowName, Sequence[float]]]] = {}
    for row in run.records():
        models.setdefault(str(row.get("model") or run.name), []).append((RowName.read(row), _rewards_of(row)))
    if not any(rewards for rows in models.values() for _, rewards in rows):
        raise UsageError(str(path), "recorded no rewards", "name a run of evaluate, or of sample --reward-model")
    return [Recorded(name, rows) for name, rows in models.items()]


def _rewards_of(row: Mapping[str, Any]) -> Sequence[float]:
    """Return the recorded rewards of a row: of its candidates, or of chosen and rejected."""
    if "rewards" in row:
        return [float("nan") if value is None else float(value) for value in row["rewards"]]
    return [float(row[side]) for side in ("chosen_reward", "rejected_reward") if row.get(side) is not None]


# --- what is written ----------------------------------------------------------------------------------------------


def _facts(plan: Plan, rows: Rows, config: Config) -> dict[str, Any]:
    """Return what later steps and the report should know; the run's settings in the units they were used in."""
    facts = runs.facts_of(config.input) | {"selected_by": config.by, "selected_end": plan.take}
    # The pairs that are made carry the rewards they were made by.
    facts["scores"] = "reward" if plan.pairing else rows.scores
    if isinstance(plan.selector, PVar):
        facts["pvar_unit"] = picking.unit_of(rows.pool, plan.selector.tau, plan.selector.scale)
    return facts


def _metrics(
    pool: Pool, scores: Floats, choice: Choice, effects: Mapping[str, Effect], seed: int
) -> dict[str, Estimate | float | int | str | None]:
    defined = np.flatnonzero(~np.isnan(scores))
    clusters = picking.blocks([pool.conversation_ids[row] for row in defined.tolist()])
    metrics: dict[str, Estimate | float | int | str | None] = {"rows": len(pool), "taken": len(choice.rows)}
    for name, effect in effects.items():
        metrics |= {f"{name}_all": effect.all, f"{name}_taken": effect.taken}
    return metrics | {"score_std": std(scores[defined], clusters, seed), "tied_at_the_end": choice.tied}


def _agreements(plan: Plan, rows: Rows, scores: Floats, choice: Choice, config: Config) -> Iterator[Agreement]:
    """Compare the selector with every other that this data serves, each at its defaults and its own end."""
    costs = picking.costs(rows.pool, plan.budget.unit, plan.pairing, config.seed)
    for name, selector, pool in picking.rivals(plan.selector, rows.pool, rows.models):
        try:
            others = selector(pool)
        except DataError as error:  # such as margins that are all negative: then there is nothing to compare with
            say(f"not compared: {error}")
            continue
        other = _choose(plan._replace(selector=selector, take=selector.takes), rows, others, costs, config)
        yield picking.agreement(rows.pool, name, scores, others, choice.rows, other.rows, config.seed)


def _choose(plan: Plan, rows: Rows, scores: Floats, costs: Ints, config: Config) -> Choice:
    sources = rows.pool.sources if config.per_source else None
    return picking.choose(scores, costs, plan.budget, plan.take, config.seed, sources=sources, groups=rows.groups)


# --- gradients ----------------------------------------------------------------------------------------------------


def _rows_to_measure(config: Config, pool: Pool) -> list[int]:
    """Draw the rows whose gradients are measured."""
    drawn = np.random.default_rng(config.seed).permutation(pool.scored_rows())[: config.measure_gradients or 0]
    return [int(row) for row in drawn]


def _gradients(
    config: Config, plan: Plan, pool: Pool, scores: Floats, choice: Choice, harvest: Harvest
) -> list[dict[str, Any]]:
    """Measure what the score of some rows should foretell: one row each, norm and bound divided by β."""
    from headwater.models import loading
    from headwater.models.positions import readable
    from headwater.rewards.gradients import measure
    from headwater.rewards.responses import Reading

    pvar = plan.selector if isinstance(plan.selector, PVar) else PVar()
    unit = picking.unit_of(pool, pvar.tau, pvar.scale)
    model, tokenizer = loading.load(str(config.policy), "policy", (), config.seed)
    longest = readable(model)
    taken = set(choice.rows.tolist())
    rows = ((record, pool.rewards[:, pool.of_row(row)]) for row, record in harvest.wanted.items())
    found = measure(model, tokenizer, rows, unit, Reading("complete", longest, longest))
    wanted = len(harvest.wanted)
    measured = zip(harvest.wanted, track(found, "gradients", wanted), strict=True)
    records = [
        {"id": pool.ids[row], "opening": pool.conversation_ids[row], "taken": row in taken}
        | {"score": None if np.isnan(scores[row]) else float(scores[row]), **one._asdict()}
        for row, one in measured
        if one
    ]
    if len(records) < wanted:
        say(f"gradients: {wanted - len(records)} of {wanted} rows are left out, their responses empty or too long")
    return records
