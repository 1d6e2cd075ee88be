"""Judgements: a judge's preference between two answers to one prompt, and what is compared in them.

Upstream writes preferences of 1 to 2 for the second output; here they are shares of 0 to 1, ½ a tie.
`judgement_files.py` reads them from the files of several tools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headwater.data.reading import RowCounts

ANNOTATIONS = "annotations.json"
"""File of a judge's run that holds its judgements, as `as_annotations` returns them."""
Compared = tuple[str, str, str]
"""A prompt and two answers to it; see `Judgement.compared`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One vote of one judge on two answers."""

    prompt: str
    """The prompt of both answers; judgements of one prompt are resampled together."""
    judge: str
    first: str
    """The model of the first answer: the baseline, where there is one."""
    second: str
    preference: float | None
    """Preference for the second answer, 0 to 1; None where the judge's reply has no verdict."""
    weight: int = 1
    """Number of votes that it counts for."""
    swapped: bool | None = None
    """Whether the judge saw the second answer first; None where it is not recorded."""
    category: str = ""
    outputs: tuple[str, str] | None = None
    scores: tuple[float, float] | None = None
    """Rewards of both answers, of a judge that gives them."""
    problem: str = ""
    """Why there is no verdict, in a word: `too_long`, `refusal`, `unparsed`, …"""
    noise: float | None = None
    """Change of a difference of `scores` in another batch, as measured; smaller differences are ties. See `noise`."""

    @property
    def is_identical(self) -> bool:
        """Whether both answers are known to be the same text."""
        return self.outputs is not None and self.outputs[0] == self.outputs[1]

    @property
    def answers(self) -> tuple[str, str]:
        """What tells the answers apart: their texts, or the models' names where the texts are not known."""
        return self.outputs or (self.first, self.second)

    @property
    def compared(self) -> Compared:
        """What is compared: the prompt and both answers, in an order that does not depend on which one is first.

        Of answers whose texts are not known (Arena-Hard, battles) it is the question's id and both models: several
        answers of one model to one question are the same to it.
        """
        first, second = sorted(self.answers)
        return self.prompt, first, second

    @property
    def _vote_on(self) -> tuple[str, Compared, frozenset[str]]:
        """Votes that share this are on one comparison: of one judge, of the same answers of the same models."""
        return self.judge, self.compared, frozenset((self.first, self.second))


def no_verdict(reasons: Mapping[str, int]) -> str:
    """Return the message that no comparison has a verdict, with the reasons."""
    return "no judgement holds a verdict: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def without_verdict(judgements: Sequence[Judgement]) -> Counter[str]:
    """Count the votes of comparisons in which a vote has no verdict, by the reason of that vote; see `whole`."""
    reasons = _reasons(judgements)
    return Counter(reasons[one._vote_on] for one in judgements if one._vote_on in reasons)


def count_comparisons(judgements: Sequence[Judgement]) -> RowCounts:
    """Count comparisons by judge, models and answers; those with a vote without verdict are dropped, by its reason."""
    every, without = {one._vote_on for one in judgements}, _reasons(judgements)
    return RowCounts(len(every), len(every) - len(without), Counter(without.values()))


def _reasons(judgements: Iterable[Judgement]) -> dict[Any, str]:
    """Return the reason of every comparison with a vote that has no verdict."""
    return {one._vote_on: one.problem or "unparsed" for one in judgements if one.preference is None}


def facing(judgements: Iterable[Judgement], baseline: str) -> list[Judgement]:
    """Return the judgements with a verdict that compare `baseline`, turned so that it comes first."""
    found = []
    for one in judgements:
        if one.preference is None or baseline not in (one.first, one.second) or one.first == one.second:
            continue
        found.append(one if one.first == baseline else turned(one))
    return found


def whole(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements of comparisons in which every vote has a verdict.

    One vote of two would measure the position in which answers are shown.
    """
    incomplete = _reasons(judgements)
    return [one for one in judgements if one._vote_on not in incomplete]


def identical_are_ties(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Return the judgements with a tie wherever both answers are the same text, whatever the judge said.

    A judge that prefers one of two equal texts tells only of itself.
    """
    return [
        replace(one, preference=0.5) if one.is_identical and one.preference is not None else one for one in judgements
    ]


def say_identical(judgements: Iterable[Judgement]) -> list[str]:
    """Return a sentence for every model some of whose answers are the same texts as those it is compared with."""
    same: dict[tuple[str, str], dict[Compared, bool]] = {}
    for one in judgements:
        if one.outputs is not None:
            same.setdefault((one.second, one.first), {})[one.compared] = one.is_identical
    found = []
    for (model, other), answers in same.items():
        count, n = sum(answers.values()), len(answers)
        if count == n:
            found.append(f"All {n:,} answers of {model} are identical to those of {other}: ties for every judge.")
        elif count:
            share = f"{100 * count / n:.1f} % of the answers of {model} ({count:,} of {n:,})"
            found.append(f"{share} are identical to those of {other}: ties for every judge.")
    return found


def as_shown_in(other: Judgement, one: Judgement) -> Judgement:
    """Return a judgement of the answers that `other` compares, turned so that they stand in its order."""
    if one.answers[0] != one.answers[1]:
        return one if one.answers[0] == other.answers[0] else turned(one)
    # Equal texts: only the models' names tell them apart.
    return turned(one) if one.first != one.second and one.first == other.second else one


def turned(one: Judgement) -> Judgement:
    """Return the same judgement with first and second exchanged."""
    return Judgement(
        prompt=one.prompt,
        judge=one.judge,
        first=one.second,
        second=one.first,
        preference=None if one.preference is None else 1 - one.preference,
        weight=one.weight,
        swapped=None if one.swapped is None else not one.swapped,
        category=one.category,
        outputs=one.outputs and (one.outputs[1], one.outputs[0]),
        scores=one.scores and (one.scores[1], one.scores[0]),
        problem=one.problem,
        noise=one.noise,
    )


def as_annotations(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return judgements as AlpacaEval annotations, a row a judge, pair of models and pair of answers.

    Several votes on one pair become one row: its preference is their weighted mean (None if any has no verdict), and
    `games` holds each vote.
    """
    grouped: dict[Any, list[Judgement]] = {}
    for one in judgements:
        votes = grouped.setdefault(one._vote_on, [])
        votes.append(as_shown_in(votes[0], one) if votes else one)
    return [_row(votes) for votes in grouped.values()]


def _row(votes: Sequence[Judgement]) -> dict[str, Any]:
    one = votes[0]
    first, second = one.outputs or ("", "")
    row: dict[str, Any] = {
        "dataset": one.category,
        "instruction": one.prompt,
        "output_1": first,
        "generator_1": one.first,
        "output_2": second,
        "generator_2": one.second,
        "annotator": one.judge,
        "preference": _annotated(mean(votes)),
    }
    problem = next((each.problem for each in votes if each.problem), "")
    if problem:
        row["problem"] = problem
    if one.scores:
        row |= {"score_1": one.scores[0], "score_2": one.scores[1]}
    if one.noise is not None:
        row["noise"] = one.noise
    if one.swapped is not None:
        row["games"] = [
            {"swapped": each.swapped, "preference": _annotated(each.preference), "weight": each.weight}
            for each in votes
        ]
    return row


def mean(votes: Sequence[Judgement]) -> float | None:
    """Return the weighted mean preference of several votes on one pair; None if any has no verdict."""
    if any(vote.preference is None for vote in votes):
        return None
    weight = sum(vote.weight for vote in votes)
    return sum(vote.weight * (vote.preference or 0.0) for vote in votes) / weight


def _annotated(preference: float | None) -> float | None:
    return None if preference is None else preference + 1
