from __future__ import annotations

import numpy as np
import pytest

from headwater.data import embedding
from headwater.errors import DataError, UsageError
from headwater.results.embedding import Embedding


def test_groups_that_differ_lie_apart_in_both_planes() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 12)) + 6 * np.repeat([[0.0], [1.0]], 30, axis=0)
    found = embedding.project(features, 0)
    for plane in (found.pca, found.tsne):
        assert plane.shape == (60, 2)
        middles = [plane[:30].mean(axis=0), plane[30:].mean(axis=0)]
        inside = max(plane[:30].std(), plane[30:].std())
        assert np.linalg.norm(middles[0] - middles[1]) > 2 * inside
    assert found.explained[0] > 0.8 > found.explained[1]


def test_pca_is_that_of_its_definition() -> None:
    features = np.random.default_rng(1).normal(size=(40, 5)) * [5, 3, 1, 1, 1]
    found = embedding.project(features, 0)
    centred = features - features.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(found.pca) == pytest.approx(np.abs(u[:, :2] * s[:2]), rel=1e-6, abs=1e-9)
    assert found.explained == pytest.approx(tuple((s**2 / (s**2).sum())[:2]))


def test_the_same_texts_and_seed_give_the_same_points() -> None:
    texts = [f"word{n % 5} word{n % 7} 日本語{n % 3}" for n in range(40)]
    one, other = (embedding.project(embedding.of_texts(texts), 3) for _ in range(2))
    assert np.array_equal(one.pca, other.pca) and np.array_equal(one.tsne, other.tsne)


def test_texts_that_are_alike_or_empty_are_refused() -> None:
    with pytest.raises(DataError, match="all responses are alike"):
        embedding.project(embedding.of_texts(["one two three"] * 20), 0)
    with pytest.raises(DataError, match="hold 0 different words"):
        embedding.of_texts(["…"] * 20)


def test_rows_name_the_pair_and_the_side() -> None:
    found = embedding.Projection(np.arange(8.0).reshape(4, 2), np.zeros((4, 2)), (0.5, 0.1))
    stored = Embedding.of_pairs(["a", "b"], found, "numbers", 7)
    assert [(point.id, point.side, point.pca[0]) for point in stored.points] == [
        ("a", "chosen", 0.0),
        ("a", "rejected", 2.0),
        ("b", "chosen", 4.0),
        ("b", "rejected", 6.0),
    ]
    assert (stored.of, stored.pairs, stored.seed) == ("numbers", 2, 7)


def test_numbers_that_show_nothing_are_refused() -> None:
    for pairs in (embedding.FEWEST - 1, embedding.MOST + 1):
        with pytest.raises(UsageError):
            embedding.check(pairs)
    embedding.check(300)
    with pytest.raises(DataError, match="9 pairs"):
        embedding.drawn(list(range(9)), 300, 0)
    assert embedding.drawn(list(range(20)), 300, 0) == list(range(20))
    assert embedding.drawn(list(range(100)), 10, 1) == embedding.drawn(list(range(100)), 10, 1) != list(range(10))
