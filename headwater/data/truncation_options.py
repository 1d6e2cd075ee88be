"""Truncation options; every command that trains or scores takes them."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.data.facts import TruncationFacts
from headwater.data.tokens import EncodeOptions
from headwater.data.truncation import Boundary, CutBy, Keep, Part, Truncation, parse_keep, parse_percentage
from headwater.data.turns import EndToken
from headwater.errors import UsageError


@dataclass(frozen=True)
class TruncationOptions:
    """Truncation options: which part of responses is kept, in tokens of the model. Prompts stay whole."""

    keep: str = "1.0"
    """How much of every response to keep: a ratio (0.4), a percentage (40%), an amount (128tok, 3sent, 50words,
    200chars), or auto:RUN for what a run of `headwater signal` recommends."""
    cut: CutBy = "own"
    """Which length a ratio refers to: own is that of each response; equal, the shorter one of the pair; shared, the
    longer one."""
    part: Part = "prefix"
    """Part of the response to keep. suffix, middle and random-span of the same size serve as controls."""
    boundary: Boundary = "grapheme"
    """Unit that is never split by truncation. grapheme is a visible character; token gives exact token counts."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always (as in published runs), or never; template gives
    complete ones all that the chat template writes behind them, such as a line break. Default: complete; evaluate
    and signal read a model as it was trained, and a reward model from elsewhere by template."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of the model if that is less."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.max_length is not None and self.max_length < 2:
            raise UsageError(f"--max-length {self.max_length}", "expected a value above 1")

    def encode_options(self, seed: int, end: EndToken = "complete") -> EncodeOptions:
        """Return the view; `seed` places random spans, `end` is the default end rule. Errors: `UsageError`."""
        truncation = Truncation(parse_keep(self.keep), self.cut, self.part, self.boundary, seed)
        return EncodeOptions(truncation, self.end or end, self.max_length)


def facts_of(encode_options: EncodeOptions, before: TruncationFacts) -> TruncationFacts:
    """Return the facts of truncated data whose facts `before` truncation are given."""
    truncation = encode_options.truncation
    facts: TruncationFacts = {"end": encode_options.end, "cut": truncation.cut, "part": truncation.part}
    if truncation.changes_nothing:
        facts = {**facts, "cut": before.get("cut", "own"), "part": before.get("part", "prefix")}
    if truncation.keep.unit != "ratio":
        facts["kept"] = f"{truncation.keep.amount}{truncation.keep.unit}"
    elif "kept" not in before:
        facts["keep"] = before.get("keep", 1.0) * float(truncation.keep.amount)
    return facts


def one_keep(keep: str | None, percentage: str | None) -> Keep:
    """Return the amount of `--keep` or of `--truncate-percentage`. Errors: `UsageError` unless one is given."""
    if (keep is None) == (percentage is None):
        problem = "are both given" if keep else "are both missing"
        raise UsageError("--keep and --truncate-percentage", problem, "give one, such as --keep 0.4")
    return parse_keep(keep) if keep else parse_percentage(str(percentage))
