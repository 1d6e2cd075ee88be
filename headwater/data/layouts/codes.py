"""Notices verdicts coded 0 and 1 in a column whose numbers are 1 and 2: there 0 is a tie, and would be read as one."""

from __future__ import annotations

from collections import Counter

from headwater.data.layouts.fields import listed
from headwater.data.layouts.layout import Broken, Fields
from headwater.data.layouts.paths import written
from headwater.data.layouts.trainers import QUESTIONS
from headwater.data.layouts.verdicts import number_in

_ANSWERS = (("output_1", "output_2"), ("response_1", "response_2"))
_ABOUT = {"generator_1": "model_a", "generator_2": "model_b", "annotator": "judge"}
"""Columns of judgements, and their names in a description."""


class VerdictCodes:
    """The numbers in the column of a verdict, where 1 is the first answer and 2 the second (`ONE_TO_TWO`).

    In a column of 0 and 1 alone, 0 may mean a tie or either answer.
    """

    def __init__(self) -> None:
        self._votes: Counter[int] = Counter()
        self._is_plain = False
        """Whether a number above 1 was found."""
        self._column = self._described = ""

    def add(self, fields: Fields, column: str) -> None:
        """Take the verdict of a row, or its list of votes."""
        if self._is_plain:
            return
        value = listed(fields, column)
        for vote in value if isinstance(value, list) else [value]:
            number = number_in(vote)
            if number in (0, 1):
                self._votes[int(number)] += 1
            elif number is not None and 1 < number <= 2:
                self._is_plain = True
        self._column = self._column or column
        self._described = self._described or _description(fields, column)

    def check(self) -> None:
        """Errors: `Broken` where the numbers are 0 and 1 and no other, so that it is not known what they mean."""
        if self._is_plain or len(self._votes) < 2:
            return
        raise Broken(
            f"{self._column} is 0 ({self._votes[0]}) or 1 ({self._votes[1]}) in all rows",
            "expected 1 (the first), 2 (the second), and 0 only for a tie",
            f"say what they mean: --columns '{self._described}{{0:a,1:b}}', or {{0:tie,1:a}}",
        )


def _description(fields: Fields, column: str) -> str:
    """Return the value of `--columns` for a row, up to the meanings of the verdict."""
    asked = next((name for name in (*QUESTIONS, "input") if fields.get(name) not in (None, "", [])), "…")
    first, second = next((two for two in _ANSWERS if two[0] in fields), ("…", "…"))
    about = "".join(f"{name}={known}, " for known, name in _ABOUT.items() if fields.get(known))
    return f"prompt={asked}, a={first}, b={second}, {about}winner={written(column)}"
