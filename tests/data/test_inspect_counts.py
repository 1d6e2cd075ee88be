"""Every number that `inspect` prints of real files, against a count that shares no code with headwater."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from headwater import cli
from tests.support import counting

FILES = [
    ("hh/helpful-base_test.jsonl.gz", 300),
    ("ultrafeedback_binarized/eval_clean.jsonl.gz", None),
    ("llmbar/Adversarial_Neighbor_dataset.json", None),
    ("llamafactory/kto_en_demo.json.gz", 100),
    ("rewardbench_bon16/tulu2_dpo_13b_n16.jsonl.gz", 20),
]
"""Files with the number of rows that are read of them; `python -m tests.data.test_inspect_counts` reads all of all."""
EXACT = ("account", "turns", "with_system_turn")
LEAST_Z = 1.0


def check(path: Path, limit: int | None, said: dict[str, Any]) -> dict[str, Any]:
    """Compare what `inspect --json` said of a file with the count; return the count."""
    counted = counting.figures(counting.rows_of(path)[:limit])
    said["account"] = {name: said["account"][name] for name in counted["account"]}  # without the columns not read
    assert {name: said[name] for name in EXACT} == {name: counted[name] for name in EXACT}
    assert said["hidden_characters"] == counted["hidden_characters"]
    near = said["near_duplicate_prompts"]
    assert {name: near[name] for name in ("prompts", "having_one")} == counted["near_duplicate_prompts"]
    for side, lengths in counted["characters"].items():
        assert said["characters"][side] == pytest.approx(lengths)
    for script, share in counted["scripts"].items():
        assert said["scripts"].get(script, 0) == pytest.approx(share, abs=2e-4)
    assert said.get("score_margin") == (pytest.approx(counted["score_margin"]) if "score_margin" in counted else None)
    if "longer_wins" in counted:
        _check_pairs(said, counted)
    return counted


def _check_pairs(said: dict[str, Any], counted: dict[str, Any]) -> None:
    wins, shared = counted["longer_wins"], counted["shared_opening"]
    assert {name: said["longer_wins"][name] for name in wins} == pytest.approx(wins)
    assert said["longer_wins"]["low"] < wins["value"] < said["longer_wins"]["high"]
    assert said["shared_opening"]["share_of_pairs"] == pytest.approx(shared["share_of_pairs"])
    assert said["shared_opening"]["characters"] == pytest.approx(shared["characters"])
    for side, sign in (("chosen", 1), ("rejected", -1)):
        strongest = sorted(counted["words"].items(), key=lambda item: -sign * item[1][2])[:10]
        listed = {row["term"]: row for row in said["terms"][side]}
        for word, (chosen, rejected, z) in strongest:
            if sign * z > LEAST_Z and word.isascii():
                row = listed[word]
                assert (row["chosen"], row["rejected"]) == (chosen, rejected)
                assert row["z"] == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize(("name", "limit"), FILES)
def test_every_number_is_that_of_an_independent_count(
    name: str, limit: int | None, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(shared_data / name), *(["--limit", str(limit)] if limit else [])]
    assert cli.main(["inspect", *arguments, "--json"]) == 0
    counted = check(shared_data / name, limit, json.loads(capsys.readouterr().out))
    assert cli.main(["inspect", *arguments]) == 0
    printed = capsys.readouterr().out
    _check_printed(printed, counted)
    assert max(map(cell_len, printed.splitlines())) <= 80


def _check_printed(printed: str, counted: dict[str, Any]) -> None:
    """The page says the same numbers, rounded."""
    told = " ".join(printed.split())
    account, turns = counted["account"], list(counted["turns"].items())
    kept, dropped = account["kept"], sum(account["dropped"].values())
    assert f"rows {account['rows_in']:,} = {kept:,} kept + 0 bad + {dropped:,} dropped" in told
    shown = ", ".join(f"{rows:,} with {count}" for count, rows in turns[:6])
    more = sum(rows for _, rows in turns[6:])
    assert f"user turns {shown}" + (f", {more:,} longer" if more else " ") in told
    near = counted["near_duplicate_prompts"]
    assert f"near-duplicates {near['having_one']:,} of {near['prompts']:,} different prompts" in told
    for side, lengths in counted["characters"].items():
        names = ("mean", "p0", "p5", "p25", "p50", "p75", "p95", "p100")
        cells = [f"{lengths[name]:,.0f}" for name in names]
        assert f"{side}, chars {' '.join(cells)}" in told
    if "longer_wins" in counted:
        wins, shared = counted["longer_wins"], counted["shared_opening"]
        better = ("longer", wins["value"]) if wins["value"] >= 0.5 else ("shorter", 1 - wins["value"])
        assert f"{better[0]} one wins {better[1]:.1%} 95 % [" in told
        assert f"n {wins['n']:,} ({wins['clusters']:,} conversations)" in told
        assert f"shared beginning {shared['share_of_pairs']:.1%} of pairs; median" in told


def main(folder: Path) -> None:
    """Count all rows of every file that inspect reads, and print what was compared and what is refused."""
    import contextlib
    import io

    for path in sorted(path for path in folder.rglob("*") if path.is_file() and ".json" in path.name):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main(["inspect", str(path), "--json"])
        if code:
            print(f"{path.relative_to(folder)}: refused with {code}")
            continue
        counted = check(path, None, json.loads(out.getvalue()))
        print(f"{path.relative_to(folder)}: equal, {counted['account']}", flush=True)


if __name__ == "__main__":
    import os

    main(Path(os.environ["HEADWATER_DATA"]))
