"""What `headwater decode` wrote, for the lens: KL token by token, and who said what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headwater.data.preference import Message
from headwater.data.truncation import Truncation
from headwater.report.lens.pieces import Piece, Pieces, at_pieces, parts
from headwater.report.lens.views import ALONE, Entry, Lens, Reading, Side
from headwater.results.runs import DECODED, Run
from headwater.statistics import Floats

READINGS = (Reading("KL", sums=True), Reading("log-ratio", sums=True))
"""KL(used ‖ reference) and log used − log reference up to a token, in nats."""


def records(run: Run) -> list[dict[str, Any]]:
    """Return what was decoded, a row a response; nothing where a run knows no KL, or not where tokens end."""
    path = run.path / DECODED
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return rows if rows and {"token_ends", "token_kl"} <= rows[0].keys() else []


def lens_of(run: Run, rows: Sequence[Mapping[str, Any]], cut: Truncation) -> Lens:
    """Return the lens of a run of `decode`, or of some of its rows."""
    notes = [
        f"{run.config['model']} and its reference, by {run.facts['strategy']}.",
        "KL is that of what each token was drawn from to the reference, the log-ratio that of the token drawn; "
        "both in nats, summed up to a token.",
    ]
    return Lens(run.name, notes, list(_entries(rows)), cut, READINGS, ALONE)


def _entries(rows: Sequence[Mapping[str, Any]]) -> Iterator[Entry]:
    several = any(row["draw"] for row in rows)
    for row in rows:
        prompt = [Message(turn["role"], turn["content"]) for turn in row["prompt"]]
        name = f"{row['id']} draw {row['draw'] + 1}" if several else row["id"]
        yield Entry(name, prompt, {ALONE[0]: _side(row)})


def _side(row: Mapping[str, Any]) -> Side:
    text, ends = row["response"], row["token_ends"]
    said = len(ends) - bool(row["complete"])  # a complete response ends with a token that is no text
    closing = [Piece("end of turn", 1)] if row["complete"] else []
    pieces = Pieces("", list(parts(text, 0, len(text), ends[:said])), closing, "")
    sums = (np.cumsum(row[f"token_{name}"]) for name in ("kl", "log_ratio"))
    scores = tuple(at_pieces(values, pieces) for values in sums)
    return Side(pieces, scores, _means(np.asarray(row["token_policy_share"]), pieces))


def _means(values: Floats, pieces: Pieces) -> Floats:
    """Return the mean over the tokens of each piece, [pieces], of values [tokens]."""
    sizes = np.array([piece.tokens for piece in pieces.every])
    sums = at_pieces(np.cumsum(values), pieces)
    means: Floats = np.diff(sums, prepend=0.0) / sizes
    return means
