"""J7: where a win rate at equal length is undefined, the raw one stands and the reason is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater.cli import main

pytestmark = pytest.mark.fault("J7")

KINDS = {
    "all won": (20, lambda n: (1, "x" * (n + 1), "y" * (2 * n + 3)), "every prompt is lost"),
    "all lost": (20, lambda n: (2, "x" * (n + 1), "y" * (2 * n + 3)), "every prompt is won"),
    "one length": (20, lambda n: (1 + n % 2, "x" * 5, "y" * 9), "all answers differ by the same length"),
    "few": (6, lambda n: (1 + n % 2, "x" * (n + 1), "y" * (2 * n + 3)), "6 pairs are judged, and 10 are needed"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reason_is_said(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count, look, reason = KINDS[kind]
    rows = []
    for n in range(count):
        preference, first, second = look(n)
        rows.append(
            {
                "instruction": f"question {n}",
                "output_1": first,
                "output_2": second,
                "generator_1": "base",
                "generator_2": "new",
                "annotator": "judge",
                "preference": preference,
            }
        )
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    assert main(["compare", str(tmp_path / "annotations.json"), "--output", str(tmp_path / "run")]) == 0
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"the win rate of new at equal length is undefined: {reason}." in printed
    assert "win rate" in printed and "nan" not in printed.lower().split()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "win_rate/judge/new" in metrics and not any("lc_win_rate" in name for name in metrics)
