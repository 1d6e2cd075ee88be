"""The lens of decoded responses: KL token by token, and the weight of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from headwater.data.preference import Message, Role
from headwater.data.truncation import Truncation
from headwater.reporting.lens.pieces import Piece, Pieces, at_pieces, parts
from headwater.reporting.lens.views import ALONE, Entry, Lens, Reading, Side
from headwater.results.decoding import DecodedResponse, DecodedResponses
from headwater.results.runs import Run
from headwater.statistics import Floats

READINGS = (Reading("KL", sums=True), Reading("log-ratio", sums=True))
"""KL(used ‖ reference) and log used − log reference up to a token, in nats."""


def decoded(run: Run) -> Sequence[DecodedResponse]:
    """Return the responses of a run; none where it holds no KL by token, or no token boundaries."""
    found = DecodedResponses.find(run.path)
    responses = found.responses if found else ()
    return responses if responses and responses[0].token_ends and responses[0].token_kl else ()


def lens_of(run: Run, rows: Sequence[DecodedResponse], cut: Truncation) -> Lens:
    """Return the lens of some responses of a run of `decode`."""
    notes = [
        f"{run.config['model']} and its reference, by {run.facts['strategy']}.",
        "KL is that of what each token was drawn from to the reference, the log-ratio that of the token drawn; "
        "both in nats, summed up to a token.",
    ]
    return Lens(run.name, notes, list(_entries(rows)), cut, READINGS, ALONE)


def _entries(rows: Sequence[DecodedResponse]) -> Iterator[Entry]:
    several = any(row.draw for row in rows)
    for row in rows:
        prompt = [Message(cast(Role, turn["role"]), turn["content"]) for turn in row.prompt]
        name = f"{row.id} draw {row.draw + 1}" if several else row.id
        yield Entry(name, prompt, {ALONE[0]: _side(row)})


def _side(row: DecodedResponse) -> Side:
    assert row.token_ends and row.token_kl and row.token_log_ratio, "`decoded` has checked"
    of_text = len(row.token_ends) - row.complete  # a complete response ends with a token that is no text
    closing = [Piece("end of turn", 1)] if row.complete else []
    pieces = Pieces("", list(parts(row.response, 0, len(row.response), row.token_ends[:of_text])), closing, "")
    scores = tuple(at_pieces(np.cumsum(values), pieces) for values in (row.token_kl, row.token_log_ratio))
    return Side(pieces, scores, _means(np.asarray(row.token_policy_share), pieces))


def _means(values: Floats, pieces: Pieces) -> Floats:
    """Return the mean over the tokens of each piece, [pieces], of values [tokens]."""
    sizes = np.array([piece.tokens for piece in pieces.every])
    sums = at_pieces(np.cumsum(values), pieces)
    means: Floats = np.diff(sums, prepend=0.0) / sizes
    return means
