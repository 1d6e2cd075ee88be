"""Responses as points in a plane, from `inspect --embed` and `evaluate --embed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from headwater.data.embedding import Projection
from headwater.results.stored import StoredResult


class EmbeddedResponse(NamedTuple):
    """One response as a point."""

    id: str
    """Id of its pair."""
    side: Literal["chosen", "rejected"]
    pca: tuple[float, float]
    tsne: tuple[float, float]


@dataclass(frozen=True)
class Embedding(StoredResult):
    """PCA and t-SNE of the features of responses."""

    FILE: ClassVar[str] = "embedding.json"

    of: str
    """What the features are, in words."""
    pairs: int
    seed: int
    """Seed of t-SNE."""
    explained: tuple[float, float]
    """Share of the variance along either axis of `pca`."""
    points: tuple[EmbeddedResponse, ...]

    @classmethod
    def of_pairs(cls, ids: Sequence[str], found: Projection, of: str, seed: int) -> Self:
        """Return the points of pairs; the features of a pair came one after the other, chosen first."""
        sides: tuple[Literal["chosen", "rejected"], ...] = ("chosen", "rejected")
        names = [(name, side) for name in ids for side in sides]
        points = (
            EmbeddedResponse(name, side, (pca[0], pca[1]), (tsne[0], tsne[1]))
            for (name, side), pca, tsne in zip(names, found.pca.tolist(), found.tsne.tolist(), strict=True)
        )
        return cls(of, len(ids), seed, found.explained, tuple(points))
