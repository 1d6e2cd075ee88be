"""The summary of the matrix counts a case that fails, or was not run, as such."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.faults.matrix import Record


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
