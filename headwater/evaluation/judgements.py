"""Judgements: a judge's preference between two answers to one prompt, read from the files of several tools.

    AlpacaEval     annotations.json: instruction, output_1, output_2, generator_1, generator_2, annotator, preference
                   (1 = the first, 2 = the second, anything between as a degree; 0 and 1.5 are ties)
    human labels   the same columns, generators and annotator as far as known (CSV too); LLMBar's input, output_1,
                   output_2, label; an empty preference has not been labelled
    Arena-Hard     judgments: uid or question_id, model, judge, games[2] with a label each (v0.1 and v2.0)
    battles        model_a, model_b, winner (model_a, model_b, tie), question_id

`data/layouts/verdicts.py` has the spellings of verdicts, which are those of preference pairs.
Upstream writes preferences of 1 to 2 for the second output; here they are shares of 0 to 1, ½ a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.data import reading
from headwater.data.layouts.fields import listed
from headwater.data.layouts.layout import Broken
from headwater.data.layouts.verdicts import ONE_OR_TWO, ONE_TO_TWO, WORDS_ONLY, arena_label, share
from headwater.data.reading import ReadOptions, RowCounts
from headwater.errors import DataError, UsageError


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


def read(path: Path) -> tuple[list[Judgement], RowCounts]:
    """Return the judgements in a file, or in a judge run's directory, and the row counts.

    A row without a verdict is kept, with `preference` None, unless it has two games: one game of two would measure the
    position of the answers, so both are dropped, by the row's own problem or as `unparsed`. Errors: `DataError` at the
    first row that is no judgement, by file and line, and where no row is kept.
    """
    place = path / ANNOTATIONS if (path / ANNOTATIONS).is_file() else path
    row_counts, found = RowCounts(), []
    for row in reading.read_rows(place, ReadOptions()):
        row_counts.rows_in += 1
        try:
            fields = {**row.fields, "games": listed(row.fields, "games")}  # a cell of CSV is a text
            judgements = list(_reader(fields)(fields))
        except Broken as problem:
            raise DataError(row.place, *problem.args) from None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(row.place, f"{type(error).__name__}: {error}", "expected a judgement", HINT) from None
        if not judgements:
            row_counts.dropped[_problem(row.fields)] += 1
            continue
        row_counts.kept += 1
        # Battles that do not say what was asked are of prompts of their own.
        found += [one if one.prompt else replace(one, prompt=row.place) for one in judgements]
    if row_counts.dropped and not found:
        raise DataError(str(place), no_verdict(row_counts.dropped), "judge the answers again")
    if not found:
        raise DataError(str(place), "holds no judgements", HINT)
    return found, row_counts


def read_all(paths: Sequence[Path]) -> tuple[list[Judgement], dict[str, RowCounts]]:
    """Return the judgements of several files or judge runs, with the row counts by file and those of all votes.

    Errors: `UsageError` for a path that does not exist; those of `read`; `DataError` where no vote has a verdict.
    """
    found: list[Judgement] = []
    stages = {}
    for path in paths:
        if not path.exists():
            raise UsageError(str(path), "is not there", "name a file of judgements or a judge run")
        judgements, stages[str(path)] = read(path)
        found += judgements
    dropped = without_verdict(found)
    stages["votes"] = RowCounts(len(found), len(found) - dropped.total(), dropped)
    if not stages["votes"].kept:
        where = ", ".join(map(str, paths))
        raise DataError(where, no_verdict(dropped), "judge the answers again, or name other judgements")
    return found, stages


def no_verdict(reasons: Mapping[str, int]) -> str:
    """Return the message that no comparison has a verdict, with the reasons."""
    return "no judgement holds a verdict: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def without_verdict(judgements: Sequence[Judgement]) -> Counter[str]:
    """Count the votes of comparisons in which a vote has no verdict, by the reason of that vote; see `whole`."""
    reasons = {_compared(one): one.problem or "unparsed" for one in judgements if one.preference is None}
    return Counter(reasons[key] for one in judgements if (key := _compared(one)) in reasons)


def _problem(fields: Mapping[str, Any]) -> str:
    return str(fields.get("problem") or "unparsed")


ANNOTATIONS = "annotations.json"
HINT = "AlpacaEval annotations, Arena-Hard judgments, or rows of model_a, model_b and winner"


def _reader(fields: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Iterator[Judgement]]:
    if fields.get("games"):
        return _annotated_games if "output_1" in fields else _arena_games
    if "winner" in fields:
        return _battle
    if "preference" in fields or "label" in fields:
        return _annotation
    raise ValueError(f"columns {', '.join(name for name in fields if name != 'games')}")


def _annotation(fields: Mapping[str, Any]) -> Iterator[Judgement]:
    if "preference" in fields:
        yield _judgement(fields, share(fields, "preference", ONE_TO_TWO))
    else:
        yield _judgement(fields, share(fields, "label", ONE_OR_TWO))


def _annotated_games(fields: Mapping[str, Any]) -> Iterator[Judgement]:
    """Yield the votes of an LLM judge game by game, as `as_annotations` writes them."""
    games = [
        (share(game, "preference", ONE_TO_TWO), int(game["weight"]), bool(game["swapped"])) for game in fields["games"]
    ]
    if len(games) > 1 and any(preference is None for preference, _, _ in games):
        return
    for preference, weight, swapped in games:
        yield _judgement(fields, preference, weight, swapped)


def _judgement(
    fields: Mapping[str, Any], preference: float | None, weight: int = 1, swapped: bool | None = None
) -> Judgement:
    first, second = (None if fields.get(name) == "" else fields.get(name) for name in ("score_1", "score_2"))
    return Judgement(
        prompt=_asked(fields),
        judge=str(fields.get("annotator") or "human"),
        first=str(fields.get("generator_1") or "output_1"),
        second=str(fields.get("generator_2") or "output_2"),
        preference=preference,
        weight=weight,
        swapped=swapped,
        category=str(fields.get("dataset") or ""),
        outputs=(str(fields["output_1"]), str(fields["output_2"])),
        scores=None if first is None or second is None else (float(first), float(second)),
        problem=str(fields.get("problem") or "") if preference is None else "",
    )


def _asked(fields: Mapping[str, Any]) -> str:
    """Return the prompt: an instruction with its input."""
    parts = [str(fields[name]) for name in ("instruction", "input") if fields.get(name)]
    if not parts:
        raise KeyError("instruction")
    return "\n".join(parts)


def _arena_games(fields: Mapping[str, Any]) -> Iterator[Judgement]:
    """Yield two votes per row: the baseline is A in the first game, and B in the second."""
    games = fields["games"]
    labels = [game and game["score"] for game in games]
    if len(labels) != 2:
        raise ValueError(f"{len(labels)} games, expected two")
    if None in labels:
        return
    for spelled, swapped in zip(labels, (False, True), strict=True):
        of_b, weight = arena_label(spelled)
        yield Judgement(
            prompt=str(fields["uid"] if "uid" in fields else fields["question_id"]),
            judge=str(fields.get("judge") or "judge"),
            first=str(fields.get("baseline") or BASELINE),
            second=str(fields["model"]),
            preference=1 - of_b if swapped else of_b,
            weight=weight,
            swapped=swapped,
            category=str(fields.get("category") or ""),
        )


BASELINE = "baseline"
"""Name of the baseline in Arena-Hard's judgments, which do not name it."""


def _battle(fields: Mapping[str, Any]) -> Iterator[Judgement]:
    yield Judgement(
        prompt=str(fields.get("question_id", fields.get("prompt", ""))),
        judge=str(fields.get("judge") or "human"),
        first=str(fields["model_a"]),
        second=str(fields["model_b"]),
        preference=share(fields, "winner", WORDS_ONLY),
    )


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
    incomplete = {_compared(one) for one in judgements if one.preference is None}
    return [one for one in judgements if _compared(one) not in incomplete]


def _compared(one: Judgement) -> tuple[str, str, str, str]:
    return one.judge, one.prompt, one.first, one.second


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
    )


def as_annotations(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return judgements as AlpacaEval annotations, a row a prompt, judge and pair of answers.

    Several votes on one pair become one row: its preference is their weighted mean (None if any has no verdict), and
    `games` holds each vote.
    """
    grouped: dict[tuple[str, str, str, str], list[Judgement]] = {}
    for one in judgements:
        grouped.setdefault((one.prompt, one.judge, one.first, one.second), []).append(one)
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
