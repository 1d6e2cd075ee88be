from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message, Preference, Response
from headwater.data.truncation import Keep, Truncation
from headwater.errors import DataError
from headwater.signals.words import FOLDS, Words


@pytest.fixture(scope="module")
def preferences() -> list[Preference]:
    return generate(Corpus(pairs=400, planted_depth=0.3, flip=0.0, seed=3))


def accuracy(prefix_scorer: Words, truncation: Truncation, labels: np.ndarray | None = None) -> float:
    labels = np.ones(len(prefix_scorer.lengths)) if labels is None else labels
    return float((prefix_scorer.margins(truncation, labels) > 0).mean())


def test_it_finds_what_was_planted_where_it_was_planted(preferences: list[Preference]) -> None:
    prefix_scorer = Words.read(preferences, 0)
    keep = Keep(Fraction(3, 10))
    assert accuracy(prefix_scorer, Truncation()) > 0.8
    assert accuracy(prefix_scorer, Truncation(keep)) > 0.8
    assert accuracy(prefix_scorer, Truncation(keep, part="suffix")) < 0.6


def test_shuffled_labels_leave_nothing_to_find(preferences: list[Preference]) -> None:
    prefix_scorer = Words.read(preferences, 0)
    rng = np.random.default_rng(0)
    found = [accuracy(prefix_scorer, Truncation(), rng.choice([-1.0, 1.0], 400)) for _ in range(20)]
    assert abs(np.mean(found) - 0.5) < 0.03


@pytest.mark.parametrize("part", ["prefix", "suffix", "middle"])
def test_differences_are_those_of_a_count_vectorizer(preferences: list[Preference], part: str) -> None:
    """Cut the texts themselves, and let scikit-learn count."""
    few = preferences[:30]
    prefix_scorer = Words.read(few, 0)
    truncation = Truncation(Keep(Fraction(2, 5)), part=part)  # type: ignore[arg-type]
    texts = []
    for response in (side for p in few for side in (p.chosen, p.rejected)):
        words = response.text.split()
        kept = truncation.keep.count(len(words))
        first = truncation.first(len(words), kept, "")
        texts.append(" ".join(words[first : first + kept]))
    whole = [side.text for p in few for side in (p.chosen, p.rejected)]
    counter = CountVectorizer(ngram_range=(1, 2), binary=True, min_df=2, token_pattern=r"\w+").fit(whole)
    counts = counter.transform(texts)
    expected = (counts[0::2] - counts[1::2]).toarray()
    found = prefix_scorer._differences(truncation).toarray()
    assert found.shape == expected.shape
    assert sorted(map(tuple, found.T)) == sorted(map(tuple, expected.T))


def test_an_opening_lies_in_one_fold(preferences: list[Preference]) -> None:
    prefix_scorer = Words.read(preferences, 0)
    folds: dict[str, set[int]] = {}
    for preference, fold in zip(preferences, prefix_scorer.folds.tolist(), strict=True):
        folds.setdefault(preference.conversation_id, set()).add(fold)
    assert all(len(found) == 1 for found in folds.values())
    assert len(folds) < len(preferences)  # the corpus repeats questions, so this was worth asking
    assert set(prefix_scorer.folds.tolist()) == set(range(FOLDS))


def test_what_only_a_pair_itself_tells_does_not_count() -> None:
    """Every chosen response holds a word of its own twice over; no other pair can teach it."""
    rows = [
        Preference(
            prompt=(Message("user", f"question {n}"),),
            chosen=Response(f"word{n} said"),
            rejected=Response(f"term{n} said"),
            id=str(n),
        )
        for n in range(50)
    ]
    assert not Words.read(rows, 0).margins(Truncation(), np.ones(50)).any()


def test_scripts_without_spaces_have_words_too() -> None:
    rows = [
        Preference(
            prompt=(Message("user", f"问题{n}"),),
            chosen=Response("我很好谢谢"),
            rejected=Response("不知道啊"),
            id=str(n),
        )
        for n in range(50)
    ]
    prefix_scorer = Words.read(rows, 0)
    assert prefix_scorer.lengths[0].tolist() == [5, 4]
    assert accuracy(prefix_scorer, Truncation(Keep(Fraction(2, 5)))) == 1.0


def test_too_few_openings_are_refused(preferences: list[Preference]) -> None:
    with pytest.raises(DataError, match="10 or more"):
        Words.read(preferences[:5], 0)
