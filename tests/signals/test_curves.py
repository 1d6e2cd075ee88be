from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from headwater.data.preference import Message, Preference, Response
from headwater.data.truncation import Keep, Truncation
from headwater.signals.curves import LEAST, CurveKey, Grid, groups_of, measure, wins, with_length_flips
from headwater.signals.prefix_scorers import Ints
from headwater.statistics import Floats

HALF = Fraction(1, 2)


class Fixed:
    """A scorer with margins by part; it remembers what it was asked."""

    unit = "tokens"

    def __init__(self, lengths: Ints, full: Floats, half: Floats, end: Floats) -> None:
        self.lengths, self.full, self.half, self.end = lengths, full, half, end

    def reads(self, truncation: Truncation) -> bool:
        return truncation.part in ("prefix", "suffix")

    def margins(self, truncation: Truncation, labels: Floats) -> Floats:
        if truncation.part == "suffix":
            return labels * self.end
        return labels * (self.full if truncation.keep == Keep(Fraction(1)) else self.half)


def test_every_curve_by_hand() -> None:
    lengths = np.array([[4, 2], [2, 4], [6, 6], [10, 1]])
    prefix_scorer = Fixed(
        lengths,
        full=np.array([2.0, 1.0, -1.0, 0.0]),
        half=np.array([1.0, 0.0, -1.0, -2.0]),
        end=np.array([-1.0, -1.0, 1.0, 1.0]),
    )
    grid = Grid((HALF, Fraction(1)), amounts=(3,), seed=1)
    members = {"some": np.array([1.0, 1.0, 0.0, 0.0])}
    curves = measure(prefix_scorer, ["a", "b", "c", "d"], members, grid)
    value = {key: point.value for key, point in curves.points.items()}
    half, full, three = Keep(HALF), Keep(Fraction(1)), Keep(Fraction(3), "tok")
    assert value[CurveKey("accuracy", "own", full)] == (1 + 1 + 0 + 0.5) / 4
    assert value[CurveKey("accuracy", "own", half)] == (1 + 0.5 + 0 + 0) / 4
    assert value[CurveKey("margin", "own", half)] == (1 + 0 - 1 - 2) / 4
    assert value[CurveKey("suffix", "own", half)] == 0.5
    assert value[CurveKey("length", "own", full)] == (1 + 0 + 0.5 + 1) / 4
    assert value[CurveKey("length", "own", three)] == (1 + 0 + 0.5 + 1) / 4  # 3 2, 2 3, 3 3, 3 1
    assert value[CurveKey("length", "equal", half)] == 0.5
    assert value[CurveKey("accuracy", "own", half, "some")] == 0.75
    assert curves.points[CurveKey("accuracy", "own", half, "some")].n == 2
    assert CurveKey("suffix", "own", full) not in value  # all of a response is no other part of it
    assert CurveKey("middle", "own", half) not in value  # this scorer does not read middles
    assert curves.margins.tolist() == [[1, 2], [0, 1], [-1, -1], [-2, 0]]
    assert len(curves.shuffled) == 19
    rows = list(curves.curve("tokens").points)
    assert len(rows) == len(value)
    assert {row.unit for row in rows} == {"ratio", "tokens"}


def test_shuffled_labels_lie_on_chance() -> None:
    n = 4000
    prefix_scorer = Fixed(np.ones((n, 2), dtype=np.int64), *(np.ones(n) for _ in range(3)))
    curves = measure(prefix_scorer, [str(i) for i in range(n)], {}, Grid((HALF, Fraction(1))))
    assert curves.points[CurveKey("accuracy", "own", Keep(HALF))].value == 1
    assert abs(curves.shuffled - 0.5).max() < 4 * 0.5 / n**0.5
    assert curves.shuffled.std() > 0


def test_ties_count_half() -> None:
    assert wins(np.array([2.0, 0.0, -0.1])).tolist() == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("lengths", "kept", "expected"),
    [
        ((9, 5), (4, 2), 1.0),  # the longer one stays the longer one
        ((9, 5), (2, 4), 0.0),  # the other one is longer now
        ((9, 5), (4, 4), 0.5),  # neither is
        ((5, 5), (2, 2), 1.0),  # neither was: length could not have decided
    ],
)
def test_a_label_turns_with_the_longer_response(
    lengths: tuple[int, int], kept: tuple[int, int], expected: float
) -> None:
    assert with_length_flips(np.array([1.0]), np.array([lengths]), np.array([kept])).tolist() == [expected]


def rows(n: int, scored: bool = True) -> list[Preference]:
    """Rows of two sources, one and two turns, and scores that differ by 0 to 2."""
    earlier = (Message("user", "a"), Message("assistant", "b"))
    return [
        Preference(
            prompt=(*(earlier if i % 2 else ()), Message("user", f"q{i}")),
            chosen=Response("x", 1.0 + i % 3 if scored else None),
            rejected=Response("y", 1.0),
            id=str(i),
            source="rare" if i == 0 else "often",
        )
        for i in range(n)
    ]


def test_groups_hold_every_pair_once_by_kind() -> None:
    n = 6 * LEAST
    lengths = np.stack([np.arange(n), np.arange(n)], axis=1)
    groups = groups_of(rows(n), lengths)
    assert groups.too_small == {"source: rare": 1}
    kinds: dict[str, Floats] = {}
    for name, members in groups.members.items():
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, np.zeros(n)) + members
    assert kinds.keys() == {"source", "turns", "length", "score margin"}
    for kind in ("turns", "length", "score margin"):
        assert (kinds[kind] == 1).all(), kind
    assert groups.members["turns: 2"].sum() == n / 2
    short = next(members for name, members in groups.members.items() if name.startswith("length: short"))
    assert np.flatnonzero(short).max() < n / 3


def test_without_scores_there_is_no_margin_group() -> None:
    n = 3 * LEAST
    lengths = np.stack([np.arange(n), np.arange(n)], axis=1)
    assert not any(name.startswith("score") for name in groups_of(rows(n, scored=False), lengths).members)
