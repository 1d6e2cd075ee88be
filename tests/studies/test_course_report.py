"""What the recipe of the course report needs: pairs in align-anything's layout, cases, and figures of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater.data import reading
from headwater.data.topic_pairs import TopicPairs, generate
from headwater.errors import UsageError
from headwater.results import runs
from headwater.results.comparison import ComparisonTables, ExampleAnswers, ModelExamples
from headwater.studies.recipes import align_anything
from headwater.studies.recipes.align_anything import Config
from headwater.studies.recipes.finished import Finished, FinishedCells
from headwater.studies.recipes.tables import Cases


def texts(rows: list[reading.Record]) -> set[tuple[str, ...]]:
    return {(row.prompt[0].content, *(response.text for response in row.responses)) for row in rows}


def test_written_pairs_read_back_from_the_layout_as_they_were(tmp_path: Path) -> None:
    parts = generate(TopicPairs(48, seed=3))
    for part, expected in (("train", [*parts.judge, *parts.policy]), ("test", parts.heldout)):
        run = align_anything.run(Config(output=tmp_path / part, part=part, pairs=48, seed=3))
        loaded = reading.load(run)
        assert loaded.layout.startswith("align-anything")
        assert texts(loaded.preferences) == texts(expected)
        stage = runs.load(run).row_counts[-1]
        assert (stage["rows_in"], stage["kept"]) == (48, len(expected))


def test_either_place_holds_the_better_response(tmp_path: Path) -> None:
    run = align_anything.run(Config(output=tmp_path / "run", part="train", pairs=480))
    rows = [json.loads(line) for line in (run / reading.PREFERENCES).read_text(encoding="utf-8").splitlines()]
    first = sum(row["overall_response"] == 1 for row in rows) / len(rows)
    assert 0.4 < first < 0.6
    assert {*rows[0]} == {"question", "response_1", "response_2", "overall_response"}


def test_pairs_of_a_file_are_divided_and_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    rows = [
        {"prompt": f"question {number % 30}", "chosen": f"good {number}", "rejected": "bad"} for number in range(60)
    ]
    lines = [*rows, {"prompt": turns, "chosen": "good", "rejected": "bad"}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in lines), encoding="utf-8")
    found = []
    for part in ("train", "test"):
        run = align_anything.run(Config(output=tmp_path / part, part=part, data=file, pairs=50))
        stage = runs.load(run).row_counts[-1]
        assert stage["dropped"]["several_turns"] == 1
        assert stage["dropped"]["beyond_the_count"] == 10
        found.append(reading.load(run).preferences)
    assert sum(map(len, found)) == 50
    assert not {row.prompt for row in found[0]} & {row.prompt for row in found[1]}
    with pytest.raises(UsageError, match="pairs 0"):
        Config(output=tmp_path, part="train", pairs=0)


def test_cases_are_both_ends_with_answers_as_text_and_rewards(tmp_path: Path) -> None:
    def case(number: int) -> ExampleAnswers:
        return ExampleAnswers(f"Why {number}?", 1.0, (-1.0, float(number)), "a | b\n*c*", "d" * 400)

    ends = ModelExamples("runs/judge", "dpo", tuple(map(case, range(5))), (case(9),))
    writer = runs.start(tmp_path / "compared", "compare", Config(output=tmp_path, part="train"))
    writer.write(ComparisonTables(examples=(ends,)))
    cell = Finished("compared", "compared", {}, runs.load(writer.finish()))
    finished = FinishedCells({"compared": cell}, {"compared": 1}, {}, {})
    table = Cases(title="cases", cells=("compared",), rows=(), most=2, characters=300).measured(finished)
    assert [row.labels["case"] for row in table.rows] == ["gained most", "gained most", "lost most"]
    first = table.rows[0]
    assert first.labels["baseline's answer"] == r"a \| b \*c\*"
    assert first.labels["model's answer"] == "d" * 300 + "…"
    assert {name: found.value for name, found in table.rows[2].figures.items()} == {
        "baseline's reward": -1.0,
        "model's reward": 9.0,
    }
