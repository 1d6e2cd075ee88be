"""Stored results: written and read by the same class, also from files of earlier versions."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from headwater.data.reading import RowCounts
from headwater.errors import UsageError
from headwater.results import runs
from headwater.results.recording import recording
from headwater.results.stored import StoredResult, stored_as
from headwater.statistics import Estimate

ACCURACY = Estimate(0.75, 0.5, 1.0, 8, 4)


class Point(NamedTuple):
    keep: float
    accuracy: Estimate


@dataclass(frozen=True)
class Curve(StoredResult):
    FILE: ClassVar[str] = "curve.json"

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Example:
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Summary(StoredResult):
    FILE: ClassVar[str] = "summary.json"
    OLD_FILES: ClassVar[tuple[str, ...]] = ("old-summary.json",)

    accuracy: Estimate
    baselines: Mapping[str, Estimate]
    examples: tuple[Example, ...] = ()
    margin: float | None = None
    reward: float | None = field(default=None, metadata=stored_as("rewards/chosen"))

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        return {"baselines" if key == "rivals" else key: value for key, value in stored.items()}


@dataclass(frozen=True)
class Records(StoredResult):
    FILE: ClassVar[str] = "rows.parquet"

    records: tuple[Example, ...]


def test_results_read_back_as_they_were_written(tmp_path: Path) -> None:
    summary = Summary(ACCURACY, {"words": ACCURACY}, (Example("a"), Example("b", 0.5)), reward=2.0)
    for result in (Curve((Point(0.5, ACCURACY), Point(1.0, ACCURACY))), summary, Records(summary.examples)):
        result.write(tmp_path)
        assert type(result).read(tmp_path) == result


def test_the_fields_are_the_keys_of_the_file(tmp_path: Path) -> None:
    Summary(ACCURACY, {}, reward=2.0).write(tmp_path)
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored == {"accuracy": ACCURACY._asdict(), "baselines": {}, "examples": [], "rewards/chosen": 2.0}
    Curve(()).write(tmp_path)
    assert json.loads((tmp_path / "curve.json").read_text()) == []


def test_files_of_earlier_and_later_versions_are_read(tmp_path: Path) -> None:
    old = {"accuracy": ACCURACY._asdict(), "rivals": {"words": ACCURACY._asdict()}, "unknown": 1}
    (tmp_path / "old-summary.json").write_text(json.dumps(old))
    assert Summary.read(tmp_path) == Summary(ACCURACY, {"words": ACCURACY})


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    Curve((Point(math.nan, ACCURACY),)).write(tmp_path)
    assert "null" in (tmp_path / "curve.json").read_text()
    assert math.isnan(Curve.read(tmp_path).points[0].keep)


def test_a_run_without_the_result_is_refused(tmp_path: Path) -> None:
    assert Curve.find(tmp_path) is None
    with pytest.raises(UsageError, match=r"holds no curve\.json"):
        Curve.read(tmp_path)


def test_rows_become_a_data_frame_and_an_html_table(tmp_path: Path) -> None:
    frame = Curve((Point(0.5, ACCURACY),)).to_pandas()
    assert list(frame.columns) == [
        "keep",
        "accuracy",
        *(f"accuracy_{part}" for part in ("low", "high", "n", "clusters")),
    ]
    assert frame["accuracy_n"].tolist() == [8]
    assert Summary(ACCURACY, {}).to_pandas()["figure"].tolist() == ["accuracy"]
    page = Records((Example("<b>"), Example("x", 0.25)))._repr_html_()
    assert "&lt;b&gt;" in page and "0.25" in page and "<b>" not in page


def test_a_data_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        Curve(()).to_pandas()


@dataclass(frozen=True)
class Config:
    size: int = 3


def test_recording_stores_counts_and_finishes(tmp_path: Path) -> None:
    with recording(tmp_path / "run", "test", Config(), stages={"read": RowCounts(3, 2, Counter(tie=1))}) as run:
        run.write(Curve(()))
    loaded = runs.load(tmp_path / "run")
    assert [stage["kept"] for stage in loaded.row_counts] == [2]
    assert Curve.read(loaded.path) == Curve(())


def test_an_error_while_recording_leaves_the_run_unfinished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), recording(tmp_path / "run", "test", Config()):
        raise RuntimeError
    assert runs.is_unfinished(tmp_path / "run")
