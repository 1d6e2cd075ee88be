"""Responses as points in a plane: PCA, and t-SNE (van der Maaten and Hinton, 2008), of their features.

The same texts and seed give the same points. In t-SNE, close points are similar; distances between groups and their
sizes have no meaning.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headwater.errors import DataError, UsageError

COMPONENTS = 50
"""Principal components that t-SNE starts from, as its authors do."""
PERPLEXITY = 30.0
FEWEST, MOST = 10, 1000
"""Pairs that can be embedded: fewer show nothing, more take long and make a page heavy."""
VOCABULARY = 4096

Floats = NDArray[np.float64]
T = TypeVar("T")


class Projection(NamedTuple):
    """Points in two planes, in the order of the features."""

    pca: Floats  # [n, 2]
    tsne: Floats  # [n, 2]
    explained: tuple[float, float]
    """Share of the variance along either axis of `pca`."""


def check(pairs: int) -> None:
    """Refuse a number of pairs that shows nothing or takes long. Errors: `UsageError`."""
    if not FEWEST <= pairs <= MOST:
        raise UsageError(f"--embed {pairs}", f"is not in [{FEWEST}, {MOST}]", "points of 300 pairs can be told apart")


def drawn(items: Sequence[T], count: int, seed: int) -> list[int]:
    """Return the places of `count` items at most, drawn at random, in their order. Errors: `DataError` for too few."""
    if len(items) < FEWEST:
        raise DataError("--embed", f"{len(items)} pairs", f"expected {FEWEST} or more")
    return sorted(random.Random(seed).sample(range(len(items)), min(count, len(items))))


def of_texts(texts: Sequence[str]) -> Any:
    """Return TF-IDF features of `texts`, a sparse [n, words] matrix, of the words that `terms` finds.

    Errors: `DataError` for texts of fewer than three different words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    from headwater.data.terms import terms

    words = {word for text in texts for word in terms(text)}
    if len(words) < 3:
        raise DataError("--embed", f"the responses hold {len(words)} different words", "expected 3 or more")
    vectorizer = TfidfVectorizer(analyzer=lambda text: list(terms(text)), max_features=VOCABULARY, sublinear_tf=True)
    return vectorizer.fit_transform(texts)


def project(features: Any, seed: int) -> Projection:
    """Lay out `features` [n, d], dense or sparse, in a plane. Errors: `DataError` where all of them are alike."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if not (features.max(axis=0) - features.min(axis=0)).max() > 0:
        raise DataError("--embed", "all responses are alike", "expected responses that differ")
    count = min(COMPONENTS, features.shape[0] - 1, features.shape[1] - 1)  # arpack finds all but one
    pca = PCA(count, svd_solver="arpack", random_state=seed)
    components = pca.fit_transform(features)
    perplexity = min(PERPLEXITY, (features.shape[0] - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    first, second = pca.explained_variance_ratio_[:2]
    return Projection(components[:, :2], np.asarray(tsne, dtype=np.float64), (float(first), float(second)))
