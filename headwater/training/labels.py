"""Labelled responses (not pairs): checks, counts and the balance of their labels.

All rows of a file are of one kind, so its first row shows which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headwater.console import say
from headwater.data.preference import Example, Preference, Unpaired
from headwater.data.reading import RowCounts
from headwater.data.tokens import PairTokens
from headwater.data.truncation import Truncation
from headwater.data.truncation_options import TruncationOptions
from headwater.errors import UsageError
from headwater.losses import KTO, SFT, Loss
from headwater.losses.token_weights import COMPARING, WEIGHTS, Weights
from headwater.results.facts import Facts


def check_row(row: Example, loss: Loss, weights: Weights, truncation: TruncationOptions) -> None:
    """Refuse labelled rows where the loss or the weights compare the two responses of a pair. Errors: `UsageError`."""
    check_reading(row, weights, truncation.encode_options(0).truncation)
    if isinstance(row, Unpaired) and not getattr(loss, "takes_unpaired", False):
        fix = 'headwater train-dpo --loss "kto()" takes such rows'
        raise UsageError(f"--loss {loss!r}", "compares two responses", _single(row), fix)


def demonstrations(
    rows: list[Preference | Unpaired], loss: Loss
) -> tuple[list[Preference | Unpaired], RowCounts | None]:
    """Return the rows that a loss learns from: `sft()` leaves out undesirable responses, and then counts the rows."""
    undesirable = sum(isinstance(row, Unpaired) and not row.label for row in rows)
    if not (isinstance(loss, SFT) and undesirable):
        return rows, None
    kept = [row for row in rows if not isinstance(row, Unpaired) or row.label]
    return kept, RowCounts(len(rows), len(kept), dropped=Counter(undesirable=undesirable))


def check_reading(row: Example, weights: Weights, truncation: Truncation) -> None:
    """Refuse to truncate or weight a labelled row by its other response, which it lacks. Errors: `UsageError`."""
    truncation.check_rows(row)
    if isinstance(row, Unpaired) and isinstance(weights, COMPARING):
        name = next(name for name, make in WEIGHTS.items() if make is type(weights))
        problem = "weighs a response by the length of the other"
        raise UsageError(f"--weights {name}", problem, _single(row), "use first, decay or mean")


def _single(row: Unpaired) -> str:
    return f"{row.id} is a single response with a label"


def counts(part: str, pairs: Sequence[PairTokens]) -> dict[str, int]:
    """Return the counts of a part for `metrics.json`: pairs, or labelled responses and the desirable ones of them."""
    if not _labelled(pairs):
        return {f"{part}_pairs": len(pairs)}
    return {f"{part}_rows": len(pairs), f"{part}_desirable": _desirable(pairs)}


def facts_of(loss: Loss, pairs: Sequence[PairTokens]) -> Facts:
    """Return the number of responses of either label and their balance in the loss, as facts of a run; prints them."""
    if not _labelled(pairs):
        return {}
    desirable = _desirable(pairs)
    undesirable = len(pairs) - desirable
    facts: Facts = {"desirable": desirable, "undesirable": undesirable}
    said = f"labels: {desirable} desirable, {undesirable} undesirable"
    if isinstance(loss, KTO) and desirable and undesirable:
        facts["label_balance"] = loss.balance(desirable, undesirable)
        said += f"; {loss.advice(desirable, undesirable)}"
    say(said)
    return facts


def watched(figure: str, held_out: Sequence[PairTokens]) -> str:
    """Return the metric of early stopping: `figure` for pairs, and one that labelled rows have for labelled rows."""
    if not _labelled(held_out):
        return figure
    return "eval_rewards/auc" if 0 < _desirable(held_out) < len(held_out) else "eval_loss"


def _labelled(pairs: Sequence[PairTokens]) -> bool:
    return any(not len(pair.chosen) or not len(pair.rejected) for pair in pairs[:1])


def _desirable(pairs: Sequence[PairTokens]) -> int:
    return sum(len(pair.chosen) > 0 for pair in pairs)
