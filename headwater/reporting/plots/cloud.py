"""Layout of a word cloud: each word at the free place nearest to the middle."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LARGEST, SMALLEST = 32.0, 9.0
"""Font sizes in pixels of the heaviest word, and of one without weight."""
GAP = 1.5
TURN = math.pi * (3 - math.sqrt(5))
"""Radians between two places that are tried: the golden angle, at which they fill the plane evenly."""
PLACES = 1000
"""Number of places that are tried for a word before it is left out."""


class Placed(NamedTuple):
    """A word, the middle of its box in pixels, and its font size."""

    word: str
    x: float
    y: float
    size: float


def lay(words: Sequence[tuple[str, float]], width: float, height: float) -> list[Placed]:
    """Return the places of words, the heaviest first; words without a free place are left out."""
    most = max((weight for _, weight in words), default=1.0)
    placed: list[Placed] = []
    boxes: list[tuple[float, float, float, float]] = []
    for word, weight in sorted(words, key=lambda item: -item[1]):
        size = SMALLEST + (LARGEST - SMALLEST) * weight / most
        half, tall = extent(word) * size / 2 + GAP, size * 0.55
        for x, y in _places(width, height):
            box = (x - half, x + half, y - tall, y + tall)
            inside = box[0] >= 0 and box[1] <= width and box[2] >= 0 and box[3] <= height
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                placed.append(Placed(word, x, y, size))
                break
    return placed


def extent(word: str) -> float:
    """Estimate how wide a word is, in font sizes: an ideograph is as wide as high, a letter about half of that."""
    return sum(_WIDTHS.get(unicodedata.east_asian_width(letter), 0.56) for letter in word)


_WIDTHS = {"W": 1.05, "F": 1.05}


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield places from the middle outwards, in a spiral as wide and as high as the drawing."""
    for step in range(PLACES):
        angle, reach = step * TURN, math.sqrt(step / PLACES) / 2
        yield width * (0.5 + reach * math.cos(angle)), height * (0.5 + reach * math.sin(angle))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
