"""Every case of the matrix has a test, and a case that fails is counted as such."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.matrix import CASES, Record

TESTS = Path(__file__).parent.parent


def test_every_case_has_a_test_and_every_mark_a_case() -> None:
    named = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if "mark.fault" in text:
            named |= {name for name in re.findall(r'"([DTRNJS]\d{1,2})(?: [^"]*)?"', text)}
    assert not set(CASES) - named, f"no test is marked with {sorted(set(CASES) - named)}"
    assert not named - set(CASES), f"not in the matrix: {sorted(named - set(CASES))}"


def report(outcome: str, text: str = "", when: str = "call") -> SimpleNamespace:
    return SimpleNamespace(
        nodeid="t", when=when, longreprtext=text, longrepr=("f", 1, "Skipped: no chromium"),
        failed=outcome == "failed", skipped=outcome == "skipped", passed=outcome == "passed",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([("passed", "")], "1/70 survived, 0 rows lost, 0 silent"),
        ([("passed", ""), ("failed", "SilentError: …")], "0/70 survived, 0 rows lost, 1 silent"),
        ([("failed", "RowsLostError: …")], "0/70 survived, 1 rows lost, 0 silent"),
        ([("skipped", "")], "0/70 survived, 0 rows lost, 0 silent"),
    ],
)
def test_the_summary_counts_a_case_only_when_all_of_its_tests_passed(
    reports: list[tuple[str, str]], expected: str
) -> None:
    record = Record()
    for outcome, text in reports:
        record.add(["D1"], report(outcome, text))
    assert expected in record.lines()[0]
