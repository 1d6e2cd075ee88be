"""Files of judgements of several tools, one small function a form; `judgements.py` has what they are read into.

    AlpacaEval     annotations.json: instruction, output_1, output_2, generator_1, generator_2, annotator, preference
                   (1 = the first, 2 = the second, anything between as a degree; 0 and 1.5 are ties)
    human labels   the same columns, generators and annotator as far as known (CSV too); LLMBar's input, output_1,
                   output_2, label; an empty preference has not been labelled. Models that are not named are those
                   that other judgements name for the same answers
    Arena-Hard     judgments: uid or question_id, model, judge, games[2] with a label each (v0.1 and v2.0)
    battles        model_a, model_b, winner (model_a, model_b, tie), question_id

`data/layouts/verdicts.py` has the spellings of verdicts, and `data/layouts/messages.py` reads the prompt of an
annotation: both as those of preference pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.data import reading
from headwater.data.layouts import Broken, NoPreference, Unread, described, with_messages
from headwater.data.layouts.codes import VerdictCodes
from headwater.data.layouts.description import ALWAYS, KINDS, Description
from headwater.data.layouts.fields import listed
from headwater.data.layouts.messages import instructed, prompt
from headwater.data.layouts.suggestion import suggest
from headwater.data.layouts.unread import Columns
from headwater.data.layouts.verdicts import ONE_OR_TWO, ONE_TO_TWO, WORDS_ONLY, arena_label, share
from headwater.data.reading import ReadOptions, RowCounts, memory
from headwater.errors import DataError, UsageError
from headwater.evaluation.judgements import ANNOTATIONS, Judgement, no_verdict, without_verdict
from headwater.evaluation.prompts import as_text
from headwater.files import sha256


def read(path: Path, description: Description | None = None) -> tuple[list[Judgement], RowCounts]:
    """Return the judgements in a file, or in a judge run's directory, and the row counts.

    `description` is that of `--columns`, for a file of another form. A row without a verdict is kept, with `preference`
    None, unless it has two games: one game of two would measure the position of the answers, so both are dropped, by
    the row's own problem or as `unparsed`. Errors: `DataError` at the first row that is no judgement or has a column
    that changes its meaning and is not read, by file and line, and where no row is kept, or verdicts may mean
    either answer (`data/layouts/codes.py`).
    """
    is_run = (path / ANNOTATIONS).is_file()
    reader = FileReader(None if is_run else description)
    place = path / ANNOTATIONS if is_run else path
    row_counts, found = RowCounts(), []
    for row in reading.read_rows(place, ReadOptions()):
        row_counts.rows_in += 1
        try:
            judgements = reader.judgements(row.fields)
        except NoPreference as problem:
            row_counts.dropped[str(problem)] += 1
            continue
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
    row_counts.not_read = reader.not_read
    try:
        reader.verdict_codes.check()
    except Broken as problem:
        raise DataError(str(place), *problem.args) from None
    if row_counts.dropped and not found:
        raise DataError(str(place), no_verdict(row_counts.dropped), "judge the answers again")
    if not found:
        raise DataError(str(place), "holds no judgements", HINT)
    return found, row_counts


class FileReader:
    """Reads the rows of one file, each by its form, or all by a description; and remembers what it does not read."""

    def __init__(self, description: Description | None) -> None:
        self._description = description
        self._unread: dict[Reader, Unread] = {}
        self.verdict_codes = VerdictCodes()

    @property
    def not_read(self) -> list[str]:
        """Columns that hold values and were not read."""
        return sorted({name for each in self._unread.values() for name in each.names})

    def judgements(self, row: Mapping[str, Any]) -> list[Judgement]:
        """Return the judgements of a row. Errors: `Broken`, `NoPreference`, KeyError, TypeError, ValueError."""
        if self._description:
            fields: Mapping[str, Any] = with_messages(self._description.row(row))[0]
            left_out = self._description.left_out(row)
            return list(_described(self._unread_of(_described).check(fields, left_out)))
        fields = {**row, "games": listed(row, "games")}  # a cell of CSV is a text
        read_row = _reader(fields)
        if read_row is _annotation and "preference" in fields:
            self.verdict_codes.add(fields, "preference")
        return list(read_row(self._unread_of(read_row).check(fields)))

    def _unread_of(self, read_row: Reader) -> Unread:
        return self._unread.setdefault(read_row, Unread(READS[read_row]))


def read_all(
    paths: Sequence[Path], description: Description | None = None
) -> tuple[list[Judgement], dict[str, RowCounts]]:
    """Return the judgements of several files or judge runs, with the row counts by file and those of all votes.

    `description` holds for files, not for judge runs. Errors: `UsageError` for a path that does not exist, and for a
    description of other data, and for judgements that are named twice; those of `read`; `DataError` where no vote has a
    verdict.
    """
    if description and description.kind != "judged":
        found_names = ", ".join(description.sources)
        raise UsageError(
            f"{description.flag} names {found_names}", "expected winner, and a and b, or model_a and model_b"
        )
    found: list[Judgement] = []
    stages = {}
    earlier: dict[str, Path] = {}
    for path in paths:
        if not memory.find(path) and not path.exists():
            raise UsageError(str(path), "is not there", "name a file of judgements or a judge run")
        digest = _digest(path)
        if digest in earlier:
            found_twice = "is named twice" if earlier[digest] == path else f"holds the same as {earlier[digest]}"
            raise UsageError(str(path), found_twice, "its judgements would count twice", "leave one out")
        earlier[digest] = path
        judgements, stages[str(path)] = read(path, description)
        found += judgements
    found = _with_names(found)
    dropped = without_verdict(found)
    stages["votes"] = RowCounts(len(found), len(found) - dropped.total(), dropped)
    if not stages["votes"].kept:
        where = ", ".join(map(str, paths))
        raise DataError(where, no_verdict(dropped), "judge the answers again, or name other judgements")
    return found, stages


def _digest(path: Path) -> str:
    """Return what is the same for two paths to the same judgements: a digest of the file, or the path of a folder."""
    file = path / ANNOTATIONS if (path / ANNOTATIONS).is_file() else path
    return memory.digest_of(path) or (sha256(file) if file.is_file() else str(file.resolve()))


_UNNAMED = ("output_1", "output_2")
"""Names of the models of a row that names none."""


def _with_names(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Give judgements that name no models the names that other judgements give the same answers."""
    known: dict[tuple[str, str], set[str]] = {}
    for one in judgements:
        if one.outputs and (one.first, one.second) != _UNNAMED:
            for name, text in zip((one.first, one.second), one.outputs, strict=True):
                known.setdefault((one.prompt, text), set()).add(name)
    return [_named(one, known) if (one.first, one.second) == _UNNAMED else one for one in judgements]


def _named(one: Judgement, known: Mapping[tuple[str, str], set[str]]) -> Judgement:
    names = [known.get((one.prompt, text), set()) for text in one.outputs or ()]
    if len(names) < 2 or any(len(each) != 1 for each in names):
        return one
    (first,), (second,) = names
    return replace(one, first=first, second=second)


def _problem(fields: Mapping[str, Any]) -> str:
    return str(fields.get("problem") or "unparsed")


HINT = "AlpacaEval annotations, Arena-Hard judgments, or rows of model_a, model_b and winner"


Reader = Callable[[Mapping[str, Any]], Iterator[Judgement]]


def _reader(fields: Mapping[str, Any]) -> Reader:
    if fields.get("games"):
        return _annotated_games if "output_1" in fields else _arena_games
    if "winner" in fields:
        return _battle
    if "preference" in fields or "label" in fields:
        return _annotation
    named = {name: value for name, value in fields.items() if name != "games"}
    raise Broken(f"columns {', '.join(named)}", f"expected {HINT}", f"or describe it, such as {suggest(named)}")


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
        first=str(fields.get("generator_1") or _UNNAMED[0]),
        second=str(fields.get("generator_2") or _UNNAMED[1]),
        preference=preference,
        weight=weight,
        swapped=swapped,
        category=str(fields.get("dataset") or ""),
        outputs=(str(fields["output_1"]), str(fields["output_2"])),
        scores=None if first is None or second is None else (float(first), float(second)),
        problem=str(fields.get("problem") or "") if preference is None else "",
        noise=None if fields.get("noise") in (None, "") else float(fields["noise"]),
    )


def _asked(fields: Mapping[str, Any]) -> str:
    """Return the prompt as it is read of a preference pair: an instruction with its input, system and history.

    Errors: `Broken` where it is no text.
    """
    return as_text(instructed(fields) if fields.get("instruction") else prompt(fields, "input"))


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


def _described(fields: Mapping[str, Any]) -> Iterator[Judgement]:
    """Yield the judgement of a row that `--columns` describes: with its two answers, or the names of two models."""
    has_answers = {"a", "b"} <= set(fields)
    if "winner" not in fields or not (has_answers or {"model_a", "model_b"} <= set(fields)):
        raise Broken(f"{', '.join(sorted(fields))} are described", f"expected {DESCRIBED}")
    first, second = (str(fields.get(f"model_{side}") or name) for side, name in zip("ab", _UNNAMED, strict=True))
    found = described.texts_compared(fields) if has_answers else None
    one = Judgement(
        prompt=as_text(found.prompt if found else prompt(fields, "prompt") if fields.get("prompt") else ()),
        judge=str(fields.get("judge") or "human"),
        first=first,
        second=second,
        preference=found.preference if found else described.verdict(fields),
        category=str(fields.get("category") or ""),
        outputs=(found.first.text, found.second.text) if found else None,
    )
    scores = (found.first.score, found.second.score) if found else (None, None)
    yield one if scores[0] is None or scores[1] is None else replace(one, scores=(scores[0], scores[1]))


DESCRIBED = "winner, and a and b, or model_a and model_b"
"""What a description of judgements names."""

_ANNOTATION_COLUMNS = (
    *("instruction", "input", "system", "history", "output_1", "output_2", "generator_1", "generator_2"),
    *("annotator", "preference", "label", "score_1", "score_2", "problem", "noise", "games"),
)
READS: Mapping[Reader, Columns] = {
    _annotation: Columns(_ANNOTATION_COLUMNS),
    _annotated_games: Columns(_ANNOTATION_COLUMNS, items=("swapped", "preference", "weight")),
    _arena_games: Columns(
        ("uid", "question_id", "model", "judge", "baseline", "category", "games", "problem"), items=("score",)
    ),
    _described: Columns((*ALWAYS, *KINDS["judged"])),
    _battle: Columns(("question_id", "prompt", "model_a", "model_b", "winner", "judge", "games")),
}
"""Columns that are read of every form."""
