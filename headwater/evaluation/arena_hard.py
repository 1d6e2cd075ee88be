"""Arena-Hard's scores: the share of votes against the baseline, and Bradley–Terry with style control.

Each prompt is judged twice in both orders with five labels; `>>` counts as three votes, a tie as half of one
(lmarena/arena-hard-auto). Upstream resamples single votes, so that the copies of a `>>` and both orders of a prompt
count as independent, and its intervals are too narrow; it sets no seed. Here prompts are resampled, with a seed;
`upstream` computes what upstream does, for comparison with published numbers, but with a seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater import statistics
from headwater.data import reading
from headwater.data.reading import ReadOptions
from headwater.errors import DataError
from headwater.evaluation.judgements import Judgement
from headwater.statistics import Estimate, Floats

UPSTREAM_ROUNDS = 100


class AnswerStyle(NamedTuple):
    """Style of an answer: its length, and the counts of each markdown element."""

    length: int
    """Characters here, tokens where upstream's metadata gives them."""
    headers: int
    lists: int
    bold: int


STYLES = AnswerStyle._fields


def score(judgements: Sequence[Judgement], seed: int = 0) -> Estimate:
    """Return the share of votes for the second answer, 0 to 1, with an interval over prompts.

    The interval is widened for small numbers (`statistics.widened`): a bootstrap of three won prompts has none.
    """
    preferences, votes, prompts = _votes(judgements)
    return statistics.widened(statistics.weighted_mean(preferences, votes, prompts, seed), span=1)


def upstream(judgements: Sequence[Judgement], seed: int = 0) -> Estimate:
    """Return upstream's score: the mean of 100 bootstrap means over single votes, and their 5th and 95th percentile.

    The interval holds 90 %, where others here hold 95 %.
    """
    preferences, votes, prompts = _votes(judgements)
    single = np.repeat(preferences, votes.astype(np.int64))
    generator = np.random.default_rng(seed)
    means = [generator.choice(single, len(single)).mean() for _ in range(UPSTREAM_ROUNDS)]
    low, high = np.percentile(means, [5, 95])
    return Estimate(float(np.mean(means)), float(low), float(high), len(single), len(set(prompts)))


def _votes(judgements: Sequence[Judgement]) -> tuple[Floats, Floats, list[str]]:
    usable = [one for one in judgements if one.preference is not None]
    preferences = np.array([one.preference for one in usable], dtype=np.float64)
    return preferences, np.array([one.weight for one in usable], dtype=np.float64), [one.prompt for one in usable]


def style_of(answer: str) -> AnswerStyle:
    """Return the style of an answer; text in code blocks is not counted as markdown."""
    prose = re.sub(r"```[^`]*```", "", answer)
    headers = len(re.findall(r"^#{1,6}\s", prose, re.MULTILINE))
    lists = len(re.findall(r"^\s*(?:\d+\.|[-*+])\s", prose, re.MULTILINE))
    bold = len(re.findall(r"\*\*[^*\n]+\*\*|__[^_\n]+__", prose))
    return AnswerStyle(len(answer), headers, lists, bold)


def read_styles(paths: Sequence[Path]) -> dict[tuple[str, str], AnswerStyle]:
    """Read Arena-Hard answer files and return the style of each answer by (model, uid).

    Upstream's metadata are taken where a row holds them, with lengths in tokens. Errors: `DataError`.
    """
    found = {}
    for path in paths:
        for row in reading.read_rows(path, ReadOptions()):
            try:
                key = str(row.fields["model"]), str(row.fields["uid"])
                found[key] = _style_of(row.fields)
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                found_out = f"{type(error).__name__}: {error}"
                raise DataError(row.place, found_out, "expected an Arena-Hard answer: uid, model, messages") from None
    return found


def _style_of(fields: Mapping[str, Any]) -> AnswerStyle:
    metadata = fields.get("metadata")
    if metadata:
        counts = (sum(metadata[name].values()) for name in ("header_count", "list_count", "bold_count"))
        return AnswerStyle(int(metadata["token_len"]), *counts)
    content = fields["messages"][-1]["content"]
    return style_of(str(content["answer"] if isinstance(content, Mapping) else content))


def style_differences(first: Sequence[AnswerStyle], second: Sequence[AnswerStyle]) -> Floats:
    """Return standardised differences [n, 4] of length, headers, lists and bold between second and first answers.

    Length: (b − a) / (a + b). Markdown: densities d by length, (d_b − d_a) / (d_a + d_b + 1). A column that does not
    vary is 0. Upstream's `--control-features length` alone drops a model in its place; here all four are used.
    """
    a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    lengths_a, lengths_b = np.maximum(a[:, :1], 1), np.maximum(b[:, :1], 1)
    dense_a, dense_b = a[:, 1:] / lengths_a, b[:, 1:] / lengths_b
    length = (lengths_b - lengths_a) / (lengths_a + lengths_b)
    differences = np.concatenate([length, (dense_b - dense_a) / (dense_a + dense_b + 1)], axis=1)
    spread = differences.std(axis=0, ddof=1)
    centred = differences - differences.mean(axis=0)
    found: Floats = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    return found
