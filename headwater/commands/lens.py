"""Show preference pairs token by token, in one self-contained page: where each response gains and loses.

With a reward model, or a policy and its reference, every token is coloured by what it adds to the score, and a cut
that can be dragged shows what would be kept and what the score was there; with --against, a second model's scores
stand beside. Without a model, the page shows texts, lengths, shared openings and the cut. Of a run of `decode` it
shows the KL of every token, and who said it. With --serve the page is live: type a prompt and two answers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from rich.text import Text

from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.splitting import unseen
from headwater.data.templates import renders_conversations
from headwater.data.tokenizers import load_tokenizer
from headwater.data.tokens import TOKENS_PER_PASS, EncodeOptions, EndToken
from headwater.data.truncation import CutBy, Truncation, parse_keep
from headwater.errors import DataError, UsageError
from headwater.marks import visible
from headwater.network.page_server import Server
from headwater.report.lens import decodes
from headwater.report.lens.page import DATA, page
from headwater.report.lens.views import PAIR, Lens, Reading, contents
from headwater.results import runs
from headwater.signal import tokenwise
from headwater.signal.tokenwise import Shown, TokenReader, Typed, Wanted
from headwater.statistics import LEVEL, Estimate

EXAMPLE = """headwater lens pairs.jsonl --model runs/reward --output runs/lens
  headwater lens --model runs/reward --serve"""
PAGE = "lens.html"
"""In the run: the page; `lens.json` beside it holds what it shows, for the report."""
SCRATCH = "scratch(vocab=4096)"
SHOWN = 200
MODEL_FLAGS = ("reference", "beta", "reward_head", "tokens_per_pass", "against", "allow_leakage", "serve")
DATA_FLAGS = ("pairs", "allow_leakage", "door")
"""What says nothing where nothing is read from a file."""
PAIR_FLAGS = ("model", "tokenizer", "end", "max_length", "cut", "door", *MODEL_FLAGS)
"""What says nothing of responses that were decoded before."""

HELP = {
    "Input": ("model", "data", "split", "limit"),
    "Output": ("output", "overwrite", "serve"),
    "Models": ("against", "reference", "tokenizer"),
    "Page": ("pairs", "keep", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater lens`."""

    model: Annotated[str | None, POSITIONAL] = None
    """Reward model, or policy with its reference, that scores every token. Default: none."""
    data: Annotated[Path | None, POSITIONAL] = None
    """Preference pairs, or a run of decode: a file, directory, pattern, run, or name on the hub. Can be left out
    with --serve."""
    output: Path | None = None
    """Directory of the run, which holds lens.html. Default: ./DATA-lens, or ./DATA-lens-by-MODEL."""
    against: str | None = None
    """Second model that scores every token, such as the first one before training."""
    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    serve: bool = False
    """Serve the page to this machine only, with a form to type prompts and responses; nothing is written."""
    port: int | None = None
    """Port of --serve. Default: a free one."""
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
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never. Default: as in training, or
    complete."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of the model if that is less."""
    tokens_per_pass: int | None = None
    """Maximum number of tokens in one forward pass of a model. Changes memory use, not the result. Default: 8192."""
    allow_leakage: bool = False
    """Show pairs whose prompts a model was trained on, too."""
    seed: int = 42
    """Random seed of the pairs shown and of the bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.model is None:
            self._refuse(MODEL_FLAGS, "is about a model", "name one with --model")
        if self.serve:
            self._refuse(("output", "overwrite"), "has no place with --serve: nothing is written", "leave it out")
        else:
            self._refuse(("port",), "is about --serve", "add --serve")
        if self.data is None:
            if not self.serve:
                raise UsageError("lens", "no data is named", "such as pairs.jsonl; or type pairs with --serve")
            self._refuse(DATA_FLAGS, "is about data", "name a preference file")
        if self.model is not None and self.tokenizer is not None:
            raise UsageError("--tokenizer", "a model has its own", "leave it out")
        for name, least in (("pairs", 1), ("max_length", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}", f"expected {least} or more")
        if self.beta is not None and self.beta <= 0:
            raise UsageError(f"--beta {self.beta:g}", "expected a value above 0", "such as 0.1")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}", "expected 1 to 65535")
        _ = self.truncation

    def _refuse(self, names: Sequence[str], found: str, to_do: str) -> None:
        """Refuse flags that are given and would say nothing. Errors: `UsageError`."""
        defaults = {name: ReadOptions() if name == "door" else getattr(Config, name, None) for name in names}
        for name in names:
            if getattr(self, name) != defaults[name]:
                flag = "a flag of how the data is read" if name == "door" else f"--{name.replace('_', '-')}"
                raise UsageError(flag, found, to_do)

    def refuse_pair_flags(self) -> None:
        """Refuse what says nothing of decoded responses. Errors: `UsageError`."""
        self._refuse(PAIR_FLAGS, "says nothing of responses that were decoded before", "leave it out")

    @property
    def truncation(self) -> Truncation:
        """Where the cut stands first. Errors: `UsageError`."""
        keep = parse_keep(self.keep)
        if keep.unit not in ("ratio", "tok"):
            raise UsageError(f"--keep {self.keep}", "counts no tokens", "the lens cuts at tokens: 40% or 128tok")
        if keep.unit == "tok" and self.cut != "own":
            raise UsageError(f"--cut {self.cut}", f"{self.keep} is the same for both", "leave --cut out")
        return Truncation(keep, self.cut)

    @property
    def models(self) -> list[str]:
        """The models that read, the one that sorts and colours first."""
        return [model for model in (self.model, self.against) if model]

    def readers(self) -> list[TokenReader]:
        """Load them. Errors: `UsageError`, `ModelError`."""
        max_tokens = self.tokens_per_pass or TOKENS_PER_PASS
        wanted = [Wanted(model, end=self.end, max_length=self.max_length) for model in self.models]
        wanted[:1] = [
            first._replace(reference=self.reference, beta=self.beta, reward_head=self.reward_head)
            for first in wanted[:1]
        ]
        return [tokenwise.load(one, max_tokens, self.seed) for one in wanted]


class Subject(NamedTuple):
    """What is shown: pairs as models read them, and what became of the others."""

    loaded: reading.Loaded[Preference]
    prep_log: PrepLog
    readers: list[TokenReader]
    pairs: list[Shown]


@renders_conversations
def run(config: Config) -> Path | None:
    """Read the pairs, write the page, print what it shows and return the run directory; or serve the page."""
    if config.serve:
        serve(config)
        return None
    assert config.data is not None, "refused before"
    output = config.output or _default_output(config.data, config.model)
    if runs.command_of(config.data) == "decode":
        return _decoded(config, runs.load(config.data), output)
    runs.check_free(output, config.overwrite, config)
    subject = _read(config, config.data)
    metrics = _metrics(subject, config.seed)
    facts = {**subject.readers[0].facts, "end": subject.readers[0].encode_options.end}
    writer = runs.start(output, "lens", config, inputs=subject.loaded.files, facts=facts)
    writer.count_stages(subject.prep_log.stages)
    subject.loaded.quarantine.save(writer.path / reading.QUARANTINE)
    writer.write_metrics(metrics)
    writer.write_records([_record(one) for one in subject.pairs])
    _write(writer, _lens(config, config.data, subject, metrics))
    return writer.finish()


def serve(config: Config) -> None:
    """Serve the page, live, until Ctrl-C."""
    if config.data is not None:
        subject = _read(config, config.data)
        lens, readers = _lens(config, config.data, subject, _metrics(subject, config.seed)), subject.readers
    else:
        readers = config.readers()
        title = " and ".join(Path(model).name for model in config.models)
        lens = Lens(title, _meanings(readers), [], config.truncation, _readings(readers))
    typed = Typed(readers)
    typed.try_out()
    server = Server(page(contents(lens), live=True), typed, config.port or 0)
    show(Text(server.address))
    say("open this address on this machine; nothing that is typed is kept; Ctrl-C stops")
    server.run()


def _write(writer: runs.RunWriter, lens: Lens) -> None:
    plain = contents(lens)
    files.write_text(writer.path / PAGE, page(plain))
    files.write_text(writer.path / DATA, files.to_json(plain))
    for note in lens.notes:
        show(Text(visible(note)))
    say(f"lens: {writer.path / PAGE}")


def _default_output(data: Path, model: str | None) -> Path:
    name = f"{data.name.split('.')[0]}-lens"
    return Path(f"{name}-by-{Path(model).name}" if model else name)


# ---- Pairs ----


def _read(config: Config, data: Path) -> Subject:
    """Read the pairs and let the models read them. Errors: `DataError` where none can be shown."""
    loaded = reading.load(data, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    preferences = _drawn(loaded.preferences, config, prep_log)
    readers = config.readers()
    if not readers:  # a tokenizer that is trained on the data is trained on all of it, as `tokens` and `preprocess` do
        tokenizer = load_tokenizer(config.tokenizer or SCRATCH, loaded.preferences)
        readers = [TokenReader(tokenizer, EncodeOptions(Truncation(), config.end or "complete", config.max_length))]
    parts = ["shown pairs", "pairs read by the second model"]
    encoded = [
        prepare(part, preferences, one.encode_options, one.tokenizer, prep_log)
        for part, one in zip(parts, readers, strict=False)
    ]
    pairs, prep_log.stages["part"] = tokenwise.shown(preferences, readers, encoded)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    if not pairs:
        raise DataError(str(data), "no pair can be parted into its tokens", "use another tokenizer")
    return Subject(loaded, prep_log, readers, pairs)


def _drawn(preferences: list[Preference], config: Config, prep_log: PrepLog) -> list[Preference]:
    """Return the pairs to show in the data's order: of those no model has seen, `config.pairs` at random."""
    if config.models and not config.allow_leakage:
        seen = frozenset[str]().union(*(runs.trained_on(Path(model)) for model in config.models))
        preferences, prep_log.stages["leakage"] = unseen(preferences, seen)
    places = _places(len(preferences), config)
    row_counts = RowCounts(len(preferences), len(places))
    if len(places) < len(preferences):
        row_counts.dropped["not_drawn"] = len(preferences) - len(places)
    prep_log.stages["draw"] = row_counts
    return [preferences[place] for place in places]


def _places(count: int, config: Config) -> list[int]:
    """Draw which of `count` rows are shown."""
    return sorted(random.Random(config.seed).sample(range(count), min(config.pairs or SHOWN, count)))


def _lens(config: Config, data: Path, subject: Subject, metrics: dict[str, Estimate]) -> Lens:
    by = " and ".join(Path(model).name for model in config.models)
    entries = [one.entry for one in subject.pairs]
    notes = _notes(config, data, subject, metrics)
    return Lens(
        f"{data.name} by {by}" if by else data.name, notes, entries, config.truncation, _readings(subject.readers)
    )


def _readings(readers: Sequence[TokenReader]) -> list[Reading]:
    return [one.reading for one in readers if one.reading]


def _metrics(subject: Subject, seed: int) -> dict[str, Estimate]:
    """Return what the scores of the whole responses say, with intervals; a second model's are `against_…`."""
    from headwater.evaluation.comparison import summarise_rewards

    records = [_record(one) for one in subject.pairs]
    found: dict[str, Estimate] = {}
    conversation_ids = [one.preference.conversation_id for one in subject.pairs]
    for prefix, _ in zip(("", "against_"), _readings(subject.readers), strict=False):
        rewards, lengths = (
            np.array([[row[f"{side}_{what}"] for side in PAIR] for row in records], dtype=np.float64)
            for what in (f"{prefix}reward", "tokens")
        )
        found |= {
            f"{prefix}{name}": one for name, one in summarise_rewards(rewards, lengths, conversation_ids, seed).items()
        }
    return found


def _record(one: Shown) -> dict[str, Any]:
    """Return a pair's row of the run's records: lengths, and what the models say."""
    row: dict[str, Any] = {name: getattr(one.preference, name) for name in ("id", "source", "opening")}
    for name, side in one.entry.sides.items():
        row[f"{name}_tokens"] = side.pieces.tokens
        for prefix, scores in zip(("", "against_"), side.scores, strict=False):
            row[f"{name}_{prefix}reward"] = float(scores[-1])
    for prefix, margin, depth in zip(("", "against_"), one.entry.margins, one.entry.depths, strict=False):
        row |= {f"{prefix}margin": margin, f"{prefix}settled_at": depth}
    return row


def _notes(config: Config, data: Path, subject: Subject, metrics: dict[str, Estimate]) -> list[str]:
    """Say what was read, by what, and what it says: the page's first paragraphs."""
    stages = subject.prep_log.stages
    lost = Counter({"quarantined": stages["read"].quarantined})
    for row_counts in stages.values():
        lost.update(row_counts.dropped)
    reasons = "".join(f", {reason.replace('_', ' ')} {count}" for reason, count in (+lost).items())
    rows = f"{data}: {stages['read'].rows_in} rows in, {len(subject.pairs)} shown{reasons}."
    if not config.models:
        return [rows, f"Tokens of {config.tokenizer or SCRATCH}; no model has read them."]
    right = [
        f"{model} scores the chosen response higher in {_share(metrics[f'{prefix}accuracy'])}"
        for prefix, model in zip(("", "against_"), config.models, strict=False)
    ]
    accuracy = metrics["accuracy"]
    longer = f"the longer one is the chosen one in {_share(metrics['length_accuracy'])}"
    size = f"n = {accuracy.n} pairs of {accuracy.clusters} prompts, {LEVEL:.0%} intervals."
    return [f"{'; '.join([*right, longer])}. {size}", *_meanings(subject.readers), rows]


def _meanings(readers: Sequence[TokenReader]) -> list[str]:
    """Say what the scores of each model are."""
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


# ---- Decoded responses ----


def _decoded(config: Config, source: runs.Run, output: Path) -> Path:
    """Write the page of a run of `decode`."""
    config.refuse_pair_flags()
    runs.check_free(output, config.overwrite, config)
    rows = decodes.records(source)
    if not rows:
        raise DataError(str(source.path), "does not say where its tokens end, or their KL", "decode with both models")
    places = _places(len(rows), config)
    row_counts = RowCounts(len(rows), len(places))
    if len(places) < len(rows):
        row_counts.dropped["not_drawn"] = len(rows) - len(places)
    say_stages({"draw": row_counts})
    facts = {name: source.facts[name] for name in ("decoded_from", "strategy")}
    writer = runs.start(output, "lens", config, inputs=[source.path / runs.DECODED], facts=facts)
    writer.count_stages({"draw": row_counts})
    writer.write_metrics({})
    _write(writer, decodes.lens_of(source, [rows[place] for place in places], config.truncation))
    return writer.finish()
