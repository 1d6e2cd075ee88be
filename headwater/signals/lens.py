"""The lens of preference pairs: drawn at random, split into tokens, scored at every prefix, and described.

found = build_lens(preferences, "pairs.jsonl", "runs/reward", seed=42)
Path("lens.html").write_text(page(contents(found.lens)))
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from headwater.console import say, say_notes, say_stages, show
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.reading import RowCounts
from headwater.data.splitting import unseen
from headwater.data.tokenizers import load_tokenizer
from headwater.data.tokens import EncodeOptions
from headwater.data.truncation import CutBy, Truncation, parse_keep
from headwater.errors import DataError, UsageError
from headwater.network.page_server import Server
from headwater.reporting.lens import decodes
from headwater.reporting.lens.page import page
from headwater.reporting.lens.views import PAIR, Lens, contents
from headwater.results import runs
from headwater.results.evaluation import better_rule
from headwater.results.facts import Facts
from headwater.signals import tokenwise
from headwater.signals.options import ScorerOptions
from headwater.signals.tokenwise import ScoredPair, TokenReader, TypedPairs
from headwater.statistics import LEVEL, Estimate, Floats

SHOWN = 200
"""Pairs that are shown by default."""
SCRATCH = "scratch(vocab=4096)"
"""Tokenizer without a model: a BPE trained on the data."""
PREFIXES = ("", "against_")
"""How the names of figures of the first and the second model begin."""
Summarise = Callable[[Floats, Floats, Sequence[str], int], dict[str, Estimate]]
"""Rewards [pairs, 2], lengths [pairs, 2], conversation ids and seed to figures: `evaluation.comparison`'s
`summarise_rewards`."""


@dataclass(frozen=True)
class LensOptions:
    """Page options: what the lens shows."""

    against: str | None = None
    """Second model that scores every token, such as the first one before training."""
    tokenizer: str | None = None
    """Tokenizer to use without a model: Hugging Face name or path, or scratch(vocab=…) for one trained on the data.
    Default: scratch(vocab=4096)."""
    pairs: int | None = None
    """Maximum number of pairs to show, drawn at random. Default: 200."""
    keep: str = "50%"
    """Truncation that the page shows at first: a ratio (0.4), a percentage (40%) or tokens (128tok)."""
    cut: CutBy = "own"
    """Which length a ratio refers to: own is that of each response; equal, the shorter one of the pair; shared, the
    longer one."""
    allow_leakage: bool = False
    """Show pairs whose prompts a model was trained on, too."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.pairs is not None and self.pairs < 1:
            raise UsageError(f"--pairs {self.pairs}", "expected 1 or more")
        _ = self.truncation

    @property
    def count(self) -> int:
        """Most pairs to show."""
        return self.pairs or SHOWN

    @property
    def truncation(self) -> Truncation:
        """The cut when the page opens. Errors: `UsageError`."""
        keep = parse_keep(self.keep)
        if keep.unit not in ("ratio", "tok"):
            raise UsageError(f"--keep {self.keep}", "counts no tokens", "the lens cuts at tokens: 40% or 128tok")
        if keep.unit == "tok" and self.cut != "own":
            raise UsageError(f"--cut {self.cut}", f"{self.keep} is the same for both", "leave --cut out")
        return Truncation(keep, self.cut)


@dataclass(frozen=True)
class PairLens:
    """The lens of preference pairs, with the models that scored them."""

    lens: Lens
    readers: list[TokenReader]
    pairs: list[ScoredPair]
    metrics: dict[str, Estimate]
    """Figures of the scores of whole responses; empty without a model."""

    @property
    def facts(self) -> Facts:
        """What the scores are: kind of model, end tokens, and of a policy its beta and reference."""
        return {**self.readers[0].facts, "end": self.readers[0].encode_options.end}

    def records(self) -> list[dict[str, Any]]:
        """Return one row a pair: lengths, rewards and margins."""
        return [one.record() for one in self.pairs]


def build_lens(
    preferences: list[Preference],
    name: str,
    model: str | None = None,
    *,
    options: LensOptions | None = None,
    scorer: ScorerOptions | None = None,
    seed: int = 42,
    prep_log: PrepLog | None = None,
    summarise: Summarise = lambda *_: {},
) -> PairLens:
    """Draw pairs of the data called `name`, score them at every prefix, and return their lens.

    Row counts go to `prep_log`, and to standard error. Errors: `DataError` where no pair can be shown, `UsageError`,
    `ModelError`, `NumericalError`.
    """
    options, scorer, prep_log = options or LensOptions(), scorer or ScorerOptions(), prep_log or PrepLog()
    models = [each for each in (model, options.against) if each]
    drawn = _draw_unseen(preferences, [] if options.allow_leakage else models, options.count, seed, prep_log)
    readers = load_readers(model, options.against, scorer, seed)
    # Without a model, a scratch tokenizer trains on all of the data, as in `tokens` and `preprocess`.
    readers = readers or [_text_reader(options.tokenizer, preferences, scorer)]
    pairs = _score(drawn, readers, prep_log)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    if not pairs:
        raise DataError(name, "no pair can be split into its tokens", "use another tokenizer")
    metrics = _metrics(pairs, len(models), seed, summarise)
    rows = _row_note(name, len(pairs), prep_log)
    title = Path(name).name
    if models:
        title += f" by {' and '.join(Path(each).name for each in models)}"
        notes = [_accuracy_note(models, metrics)] if metrics else []
        notes += [*_score_notes(readers), rows]
    else:
        notes = [rows, f"Tokens of {options.tokenizer or SCRATCH}; no model has scored them."]
    readings = [one.reading for one in readers if one.reading]
    lens = Lens(title, notes, [one.entry for one in pairs], options.truncation, readings)
    return PairLens(lens, readers, pairs, metrics)


def empty_lens(model: str, options: LensOptions, scorer: ScorerOptions, seed: int) -> PairLens:
    """Load the models and return a lens without pairs, for a live page. Errors: `UsageError`, `ModelError`."""
    readers = load_readers(model, options.against, scorer, seed)
    title = " and ".join(Path(each).name for each in (model, options.against) if each)
    readings = [one.reading for one in readers if one.reading]
    return PairLens(Lens(title, _score_notes(readers), [], options.truncation, readings), readers, [], {})


def decoded_lens(run: runs.Run, options: LensOptions, seed: int, prep_log: PrepLog) -> Lens:
    """Return the lens of responses of a run of `decode`, drawn at random. Errors: `DataError` for a run without KL."""
    rows = decodes.decoded(run)
    if not rows:
        raise DataError(str(run.path), "holds no KL by token, or no token boundaries", "decode with both models")
    drawn = [rows[index] for index in draw(len(rows), options.count, seed, prep_log)]
    say_stages(prep_log.stages)
    return decodes.lens_of(run, drawn, options.truncation)


def serve(found: PairLens, port: int | None) -> None:
    """Serve the page of a lens to this machine, with a form that scores what is typed, until Ctrl-C."""
    typed = TypedPairs(found.readers)
    typed.try_out()
    server = Server(page(contents(found.lens), live=True), typed, port or 0)
    show(Text(server.address))
    say("open this address on this machine; nothing that is typed is stored; Ctrl-C stops")
    server.run()


def load_readers(model: str | None, against: str | None, options: ScorerOptions, seed: int) -> list[TokenReader]:
    """Load the models that score, the first of which sorts and colours. Errors: `UsageError`, `ModelError`.

    Reference, beta and reward head of `options` are those of `model`; `against` has its defaults.
    """
    second = dataclasses.replace(options, reference=None, beta=None, reward_head=None)
    named = ((model, options), (against, second))
    return [tokenwise.load(name, how, seed) for name, how in named if name is not None]


def _text_reader(tokenizer: str | None, preferences: Sequence[Preference], options: ScorerOptions) -> TokenReader:
    """Return a reader that splits texts into tokens without a model; a scratch tokenizer trains on `preferences`."""
    encode_options = EncodeOptions(Truncation(), options.end or "complete", options.max_length)
    return TokenReader(load_tokenizer(tokenizer or SCRATCH, preferences), encode_options)


def draw(total: int, count: int, seed: int, prep_log: PrepLog) -> list[int]:
    """Return the indices of `count` of `total` rows, drawn at random, in the order of the data."""
    drawn = sorted(random.Random(seed).sample(range(total), min(count, total)))
    row_counts = RowCounts(total, len(drawn))
    if len(drawn) < total:
        row_counts.dropped["not_drawn"] = total - len(drawn)
    prep_log.stages["draw"] = row_counts
    return drawn


def _draw_unseen(
    preferences: list[Preference], models: Sequence[str], count: int, seed: int, prep_log: PrepLog
) -> list[Preference]:
    """Return `count` preferences drawn at random, of those that no model was trained on."""
    if models:
        seen = frozenset[str]().union(*(runs.trained_on(Path(model)) for model in models))
        preferences, prep_log.stages["leakage"] = unseen(preferences, seen)
    return [preferences[index] for index in draw(len(preferences), count, seed, prep_log)]


def _score(preferences: Sequence[Preference], readers: Sequence[TokenReader], prep_log: PrepLog) -> list[ScoredPair]:
    """Return the preferences that all readers can read, scored at every prefix; row counts go to `prep_log`.

    Errors: `DataError` where a reader can read none of them, `NumericalError`.
    """
    parts = ["shown pairs", "pairs read by the second model"]
    encoded = [
        prepare(part, preferences, one.encode_options, one.tokenizer, prep_log)
        for part, one in zip(parts, readers, strict=False)
    ]
    pairs, prep_log.stages["part"] = tokenwise.score_pairs(preferences, readers, encoded)
    return pairs


def _metrics(pairs: Sequence[ScoredPair], models: int, seed: int, summarise: Summarise) -> dict[str, Estimate]:
    """Return the figures of the scores of whole responses; those of a second model are `against_…`."""
    records, conversation_ids = [one.record() for one in pairs], [one.preference.conversation_id for one in pairs]
    found: dict[str, Estimate] = {}
    for prefix in PREFIXES[:models]:
        rewards, lengths = (
            np.array([[row[f"{side}_{what}"] for side in PAIR] for row in records], dtype=np.float64)
            for what in (f"{prefix}reward", "tokens")
        )
        figures = summarise(rewards, lengths, conversation_ids, seed)
        found |= {f"{prefix}{name}": figure for name, figure in figures.items()}
    return found


def _row_note(data: str, shown: int, prep_log: PrepLog) -> str:
    """Return how many rows were read and shown, and why the others are not."""
    stages = prep_log.stages
    lost = Counter({"quarantined": stages["read"].quarantined})
    for row_counts in stages.values():
        lost.update(row_counts.dropped)
    reasons = "".join(f", {reason.replace('_', ' ')} {count}" for reason, count in (+lost).items())
    return f"{data}: {stages['read'].rows_in} rows in, {shown} shown{reasons}."


def _accuracy_note(models: Sequence[str], metrics: Mapping[str, Estimate]) -> str:
    """Return how often each model, and length alone, prefer the chosen response."""
    right = [
        f"{model} scores the chosen response higher in {_share(metrics[f'{prefix}accuracy'])} (scores: mean "
        f"{metrics[f'{prefix}reward_mean'].value:.3g}, standard deviation {metrics[f'{prefix}reward_std'].value:.3g})"
        for prefix, model in zip(PREFIXES, models, strict=False)
    ]
    accuracy = metrics["accuracy"]
    rule = better_rule(metrics["length_accuracy"])
    by_length = f"the {rule.wins} one is the chosen one in {_share(rule.accuracy)}"
    size = f"n = {accuracy.n} pairs of {accuracy.clusters} prompts, {LEVEL:.0%} intervals."
    return f"{'; '.join([*right, by_length])}. {size}"


def _score_notes(readers: Sequence[TokenReader]) -> list[str]:
    """Return what the scores of each model are, a sentence a model."""
    found = []
    for one in readers:
        facts, means = one.facts, "the reward"
        if "reference" in facts:
            means = f"the implicit reward β Σ (log π − log π_ref), β = {facts['beta']:g}, π_ref = {facts['reference']},"
        whose = f" of {one.reading.model}" if one.reading and len(readers) > 1 else ""
        found.append(f"A score{whose} is {means} of a response up to a token; end tokens: {one.encode_options.end}.")
    return found


def _share(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f} % (too few prompts for an interval)"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
