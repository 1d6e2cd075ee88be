"""A prefix scorer without a model: a cross-fitted bag of words.

A sparse logistic regression on the differences of 1-grams and 2-grams, fitted on four fifths of the conversations and
applied to the last fifth, anew for every cut. It takes a fraction of a second a cut, and learns no more than a bag of
words can: where it finds no signal, a language model still may.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.data import segmentation
from headwater.data.preference import Preference, Prompted
from headwater.data.truncation import Truncation
from headwater.errors import DataError
from headwater.signals.prefix_scorers import Ints, first_of, kept_of
from headwater.statistics import Floats

FOLDS = 5
FEWEST = 2 * FOLDS
"""Conversations that are needed, to fit on some and score others."""
PENALTY = 0.02
"""scikit-learn's C: strong shrinkage, because there are more n-grams than pairs."""
RARE = 2
"""n-grams in fewer responses than this are left out: they cannot be used to predict another response."""
TOLERANCE = 1e-3
"""Tolerance of the solver. On HH and the planted corpus no pair is decided otherwise than with 1e-4, in 15 % less
time."""
NEVER = np.iinfo(np.int32).max

_TERM = re.compile(r"\w+")


class Grams(NamedTuple):
    """Every 1-gram and 2-gram of all responses, with its place; ordered by response, then by term."""

    response: Ints  # [grams] number of the response: chosen and rejected of the first pair, of the second, …
    term: Ints  # [grams] which n-gram, from 0
    first: Ints  # [grams] the word it begins in
    last: Ints  # [grams] the word it ends in
    terms: int


class Beginnings(NamedTuple):
    """Number of words of either response after which an n-gram is complete; ordered by pair, then by term.

    Computed once for all prefixes: an n-gram of a prefix is in every longer prefix.
    """

    pair: NDArray[np.int32]  # [n-grams of a pair]
    term: NDArray[np.int32]
    chosen: NDArray[np.int32]  # `NEVER` where it is not in the response
    rejected: NDArray[np.int32]


def folds_of(preferences: Sequence[Prompted], seed: int) -> Ints:
    """Return the fold of every row, [rows], from 0; a conversation lies in one fold. Errors: `DataError`."""
    names, conversation_id = np.unique([p.conversation_id for p in preferences], return_inverse=True)
    if len(names) < FEWEST:
        raise DataError(
            f"{len(preferences)} pairs",
            f"have {len(names)} different conversations",
            f"expected {FEWEST} or more, to fit on some and score others",
        )
    found: Ints = np.random.default_rng(seed).permutation(len(names))[conversation_id] % FOLDS
    return found


@dataclass(frozen=True)
class Words:
    """Scores prefixes by a bag of words; lengths are in words, as `--keep 50words` counts them."""

    lengths: Ints  # [pairs, 2]
    grams: Grams
    beginnings: Beginnings
    folds: Ints  # [pairs] the fold in which a pair is scored; a conversation lies in one fold

    unit = "words"
    fewest = FEWEST

    @classmethod
    def read(cls, preferences: Sequence[Preference], seed: int) -> Words:
        """Index the responses of `preferences`; `seed` assigns conversations to folds. Errors: `DataError`."""
        folds = folds_of(preferences, seed)
        texts = [response.words for p in preferences for response in (p.chosen, p.rejected)]
        lengths, grams = _index(texts)
        return cls(lengths.reshape(-1, 2), grams, _beginnings(grams), folds)

    def reads(self, truncation: Truncation) -> bool:
        """Return True: every part can be scored."""
        return True

    def margins(self, truncation: Truncation, labels: Floats) -> Floats:
        """Return cross-fitted margins [pairs] of the kept parts, for the labelled response."""
        if not self.grams.terms:
            return np.zeros(len(labels))
        differences = self._differences(truncation)
        # The solver needs two classes. Without an intercept, swapping the responses of a pair changes its class and
        # nothing else: every second pair is swapped, so that its winner comes second.
        classes = np.where(np.arange(len(labels)) % 2, -1.0, 1.0)
        turned = differences.copy()
        turned.data *= np.repeat(labels * classes, np.diff(turned.indptr))
        margins = np.zeros(len(labels))
        for fold in range(FOLDS):
            read = self.folds == fold
            margins[read] = differences[read] @ _fit(turned[~read], classes[~read])
        return labels * margins

    def _differences(self, truncation: Truncation) -> Any:
        """Return which n-grams the kept parts hold, chosen − rejected: sparse [pairs, terms] of −1, 0, 1."""
        from scipy.sparse import csr_array

        kept = kept_of(truncation, self.lengths)
        if truncation.part == "prefix":
            return self._of_beginnings(kept)
        first = first_of(truncation, self.lengths, kept).ravel()
        end = first + kept.ravel()
        response, term = self.grams.response, self.grams.term
        inside = np.flatnonzero((self.grams.first >= first[response]) & (self.grams.last < end[response]))
        response, term = response[inside], term[inside]
        # A bag holds a word or does not; repetitions stand side by side.
        new = np.ones(len(inside), dtype=bool)
        new[1:] = (response[1:] != response[:-1]) | (term[1:] != term[:-1])
        starts = np.concatenate([[0], np.cumsum(np.bincount(response[new], minlength=self.lengths.size))])
        shape = (self.lengths.size, self.grams.terms)
        places = term[new].astype(np.int32), starts.astype(np.int32)  # liblinear takes no wider ones
        held = csr_array((np.ones(int(new.sum())), *places), shape=shape)
        return held[0::2] - held[1::2]

    def _of_beginnings(self, kept: Ints) -> Any:
        """Return the differences [pairs, terms] of beginnings of `kept` words [pairs, 2]."""
        from scipy.sparse import csr_array

        pair, term, chosen, rejected = self.beginnings
        ends = kept.astype(np.int32)
        difference = (chosen <= ends[pair, 0]).astype(np.int8) - (rejected <= ends[pair, 1])
        differing = np.flatnonzero(difference)
        starts = np.concatenate([[0], np.cumsum(np.bincount(pair[differing], minlength=len(kept)))])
        shape = (len(kept), self.grams.terms)
        return csr_array(
            (difference[differing].astype(np.float64), term[differing], starts.astype(np.int32)), shape=shape
        )


def _beginnings(grams: Grams) -> Beginnings:
    """Merge the n-grams of both responses of every pair."""
    pair, rejected = np.divmod(grams.response, 2)
    keys, index = np.unique(pair * grams.terms + grams.term, return_inverse=True)
    needed = np.full((2, len(keys)), NEVER)
    np.minimum.at(needed, (rejected, index), (grams.last + 1).astype(np.int32))
    pair, term = np.divmod(keys, max(grams.terms, 1))
    return Beginnings(pair.astype(np.int32), term.astype(np.int32), *needed)


def _fit(differences: Any, classes: Floats) -> Floats:
    """Fit weights [terms] so that the signs of `differences` @ weights are the `classes` [pairs], 1 or −1."""
    from sklearn.linear_model import LogisticRegression

    # Dual coordinate descent: with more terms than pairs it is exact and 20 times as fast as lbfgs.
    model = LogisticRegression(
        C=PENALTY, solver="liblinear", dual=True, fit_intercept=False, tol=TOLERANCE, max_iter=10_000, random_state=0
    )
    return np.asarray(model.fit(differences, classes).coef_[0], dtype=np.float64)


def _index(texts: Sequence[str]) -> tuple[Ints, Grams]:
    """Return the words of every text, and the n-grams of all; case does not count."""
    vocabulary: dict[str, int] = {}
    known: dict[str, list[int]] = {}  # words as they are written to the terms in them
    lengths: list[int] = []
    counts: list[int] = []  # of terms, by response
    terms, places = array("q"), array("q")  # which term it is, the word it stands in
    for text in texts:
        ends = segmentation.ends(text, "word")
        before, start = len(terms), 0
        for number, end in enumerate(ends):
            written = text[start:end]
            found = known.get(written)
            if found is None:
                words = _TERM.findall(written.casefold())
                found = known[written] = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            terms.extend(found)
            places.extend([number] * len(found))
            start = end
        lengths.append(len(ends))
        counts.append(len(terms) - before)
    response = np.repeat(np.arange(len(texts)), counts)
    term, place = (np.asarray(column, dtype=np.int64) for column in (terms, places))
    follows = np.flatnonzero(response[1:] == response[:-1])
    pairs = len(vocabulary) + term[follows] * len(vocabulary) + term[follows + 1]
    grams = _without_rare(
        np.concatenate([response, response[follows]]),
        np.concatenate([term, pairs]),
        np.concatenate([place, place[follows]]),
        np.concatenate([place, place[follows + 1]]),
        len(texts),
    )
    return np.array(lengths, dtype=np.int64), grams


def _without_rare(response: Ints, term: Ints, first: Ints, last: Ints, responses: int) -> Grams:
    """Leave out n-grams of fewer than `RARE` responses, and number the others from 0."""
    names, index = np.unique(term, return_inverse=True)
    once_a_response = np.unique(index * responses + response) // responses
    known = np.bincount(once_a_response, minlength=len(names)) >= RARE
    number = np.cumsum(known) - 1
    order = np.lexsort((index, response))
    order = order[known[index[order]]]
    return Grams(response[order], number[index[order]], first[order], last[order], int(known.sum()))
