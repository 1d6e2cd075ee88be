"""Words that distinguish preferred responses: weighted log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn, Fightin' Words (Political Analysis, 2008): the log-odds of a word in chosen responses minus
those in rejected ones, both shrunk towards the word's share of all words, so that a rare word does not become extreme.
Divided by its standard deviation it is a z-score, which ranks words. It is not a test: the words of one response are
not independent.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import regex

PRIOR = 500.0
"""Words that the prior weighs as much as."""
LEAST = 5
"""A term that occurs fewer times in all responses is not ranked."""
SHOWN = 40
"""Terms kept of either side."""
COMMON = 0.005
"""Words that make up a larger share of both sides are left out of the frequent ones: they are those of any text."""

# Scripts that put no space between words are read in pairs of characters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_RUN = regex.compile(
    rf"(?P<run>[{_UNSPACED}][{_UNSPACED}\p{{M}}]*)|[\p{{L}}\p{{N}}--[{_UNSPACED}]][\w'--[{_UNSPACED}]]*", regex.V1
)


class Term(NamedTuple):
    """A word, its counts in chosen and in rejected responses, and the log-odds between them."""

    term: str
    chosen: int
    rejected: int
    log_odds: float
    """Log-odds in chosen minus rejected responses; natural logarithm."""
    z: float


class Contrast(NamedTuple):
    """The most distinctive words, by side, the strongest first."""

    pairs: int
    words: tuple[int, int]
    """Number of terms in chosen and in rejected responses, with repetitions."""
    chosen: tuple[Term, ...]
    rejected: tuple[Term, ...]
    frequent: tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]
    """The most frequent words of either side but the `COMMON` ones, with their counts."""


def terms(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case; where no space separates them, every two characters."""
    for match in _RUN.finditer(text.casefold().replace("’", "'")):
        if match["run"]:
            characters = regex.findall(r"\X", match["run"])
            yield from map("".join, itertools.pairwise(characters)) if characters[1:] else characters
        else:
            yield match[0].strip("'_")


def contrast(pairs: Iterable[tuple[str, str]]) -> Contrast:
    """Compare the words of chosen and rejected responses, the texts of `pairs`."""
    sides: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    number = 0
    for texts in pairs:
        number += 1
        for side, text in zip(sides, texts, strict=True):
            side.update(terms(text))
    words = sides[0].total(), sides[1].total()
    ranked = sorted(_ranked(*sides), key=lambda term: (-term.z, term.term))
    chosen = tuple(term for term in ranked[:SHOWN] if term.z > 0)
    rejected = tuple(term for term in ranked[::-1][:SHOWN] if term.z < 0)
    common = {name for name in sides[0] if all(side[name] > COMMON * side.total() for side in sides)}
    frequent, others = (
        tuple(itertools.islice((word for word in side.most_common() if word[0] not in common), SHOWN)) for side in sides
    )
    return Contrast(number, words, chosen, rejected, (frequent, others))


def _ranked(chosen: Counter[str], rejected: Counter[str]) -> Iterator[Term]:
    names = [name for name in chosen | rejected if chosen[name] + rejected[name] >= LEAST]
    if not names:
        return
    counts = np.array([[side[name] for name in names] for side in (chosen, rejected)], dtype=np.float64)
    totals = np.array([[chosen.total()], [rejected.total()]])
    prior = PRIOR * counts.sum(axis=0) / totals.sum()
    odds = np.log((counts + prior) / (totals + PRIOR - counts - prior))
    difference = odds[0] - odds[1]
    z = difference / np.sqrt((1 / (counts + prior)).sum(axis=0))
    for place, name in enumerate(names):
        yield Term(name, chosen[name], rejected[name], float(difference[place]), float(z[place]))
