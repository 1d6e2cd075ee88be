"""Spellings of a verdict on two answers, one table for pairs and judgements: words, labels, numbers, and none at all.

A verdict is read as the preference for the second answer: 0 for the first, 1 for the second, ½ for a tie, and None
where a cell is empty. What a number means differs by the column, and a layout names its `Numbers`; words are the same
everywhere. Any other spelling is `Broken`, and the message lists the known ones.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headwater.data.layouts.layout import Broken, Fields

LABELS = {
    "A>>B": (0.0, 3),
    "A>B": (0.0, 1),
    "A=B": (0.5, 1),
    "B>A": (1.0, 1),
    "B>>A": (1.0, 3),
    "A<<B": (1.0, 3),
    "A<B": (1.0, 1),
    "B=A": (0.5, 1),
    "B<A": (0.0, 1),
    "B<<A": (0.0, 3),
}
"""Arena-Hard's labels: the preference for B, and the number of votes (lmarena/arena-hard-auto)."""

TIES = ("tie", "tied", "draw", "equal", "same", "both", "neither", "both good", "both bad", "tie (…)", "C")
"""Words for a tie. `tie (bothbad)` is LMSYS's, `both_bad` LMArena's, `C` MT-bench's; all are a tie."""
_TIES = frozenset(("tie", "ties", "tied", "draw", "equal", "same", "both", "neither", "c", "bothgood", "bothbad"))
_NONE = frozenset(("", "none", "null", "nan", "n/a", "error"))
"""`error` is FastChat's winner where a judge's reply could not be read."""
_NOUN = "(?:model|response|output|answer|assistant|option|completion|candidate|choice|text|summary)?"
_FIRST, _SECOND = re.compile(f"(?:{_NOUN}a|first{_NOUN}|left)"), re.compile(f"(?:{_NOUN}b|second{_NOUN}|right)")
_NUMBERED = re.compile(rf"{_NOUN}(\d+)")
_TIE_AND_WHY = re.compile(r"tie\s*\(.*\)")
_BESIDE_LABELS = re.compile(r"[^\w<>=]|_")


@dataclass(frozen=True)
class Numbers:
    """What the numbers of a column mean."""

    says: str
    """For messages."""
    share: Callable[[float], float | None]
    """Returns the preference for the second answer, None for a number without a meaning."""


ONE_TO_TWO = Numbers(
    "1 (the first) to 2 (the second), 0 or 1.5 for a tie",
    lambda x: 0.5 if x == 0 else x - 1 if 1 <= x <= 2 else None,
)
"""AlpacaEval's preferences; between 1 and 2 they are the probability of the second, plus 1."""
ONE_OR_TWO = Numbers("1 (the first) or 2 (the second)", {1.0: 0.0, 2.0: 1.0}.get)
ZERO_OR_ONE = Numbers("0 (the first) or 1 (the second)", {0.0: 0.0, 1.0: 1.0}.get)
ONE_OR_ZERO = Numbers("1 (the first) or 0 (the second)", {1.0: 0.0, 0.0: 1.0}.get)
STRENGTH = Numbers(
    "a number from -3 (the first is much better) to 3, 0 for a tie",
    lambda x: (x + 3) / 6 if -3 <= x <= 3 else None,
)
"""HelpSteer's strength of preference."""
WORDS_ONLY = Numbers("no number", lambda _: None)
"""For columns where it is not known whether numbers begin at 0 or at 1."""


def share(fields: Fields, column: str, numbers: Numbers) -> float | None:
    """Return the preference for the second answer that a column holds, 0 to 1, None where it is empty or not a number.

    Errors: `Broken` for a spelling that is not known.
    """
    value = fields.get(column)
    if value is None or _says_nothing(value):
        return None
    found, number = _word(value) if isinstance(value, str) else None, number_in(value)
    if number is not None:
        found = numbers.share(number)
    if found is None:
        raise Broken(f"{column} is {reprlib.repr(value)}", f"expected {_known(numbers)}, or null for no verdict")
    return found


def number_in(value: Any) -> float | None:
    """Return the number that a cell is, or that its text is or ends in (`response_1`); None without one."""
    if isinstance(value, str):
        return _number(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_known(value: Any) -> bool:
    """Return whether a text is a known spelling of a verdict, whatever the numbers of its column mean."""
    try:
        share({"verdict": value}, "verdict", WORDS_ONLY)
    except Broken:
        return False
    return True


def _says_nothing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in _NONE
    return isinstance(value, float) and math.isnan(value)


def arena_label(value: Any) -> tuple[float, int]:
    """Return the preference for B of one of `LABELS`, and its number of votes. Errors: `Broken`."""
    found = _BY_LABEL.get(_plain(value)) if isinstance(value, str) else None
    if found is None:
        raise Broken(f"label {reprlib.repr(value)}", f"expected one of {', '.join(LABELS)}")
    return found


def _word(value: str) -> float | None:
    """Return the preference that words or a label name, None for any other text."""
    plain = _plain(value)
    if plain in _BY_LABEL:
        return _BY_LABEL[plain][0]
    if plain in _TIES or _TIE_AND_WHY.fullmatch(value.strip().casefold()):
        return 0.5
    return 0.0 if _FIRST.fullmatch(plain) else 1.0 if _SECOND.fullmatch(plain) else None


def _number(value: str) -> float | None:
    """Return the number that a text is (`1`, `1.0`), or ends in (`response_1`), else None."""
    try:
        return float(value)
    except ValueError:
        named = _NUMBERED.fullmatch(_plain(value))
        return float(named[1]) if named else None


def _plain(value: str) -> str:
    """Return a spelling without case, brackets, spaces and underscores: `[[Model A]]` is `modela`."""
    return _BESIDE_LABELS.sub("", value.casefold())


_BY_LABEL = {_plain(name): meaning for name, meaning in LABELS.items()}


def _known(numbers: Numbers) -> str:
    first = "A, model_a, response_a, first (the first answer); B, model_b, response_b, second (the second)"
    return f"{numbers.says}; {first}; {', '.join(TIES)} (a tie); A>B (a label)"
