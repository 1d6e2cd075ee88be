"""What `headwater inspect` finds in made and real data, on the terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Message, Preference, Response
from headwater.data.profiling import NEAR, Profile, near_duplicates, script_of, spread
from headwater.marks import visible
from headwater.results import runs


def row(number: int, chosen: str, rejected: str = "No.", **other: Any) -> bytes:
    return json.dumps({"prompt": f"Why {number}?", "chosen": chosen, "rejected": rejected, **other}).encode() + b"\n"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three pairs, of which the longer wins two and the first letters are shared by one; a bad row and a duplicate."""
    path = tmp_path / "made.jsonl"
    path.write_bytes(
        row(0, "Nor this.", score_chosen=3, score_rejected=1)
        + b"broken\n"
        + row(1, "Yes, да 好.", score_chosen=2, score_rejected=1)
        + row(1, "Yes, да 好.")
        + row(2, "A\x1b[2J\u202e", "Something longer.")
    )
    return path


def inspected(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert cli.main(["inspect", "--json", *map(str, arguments)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_made_file_as_json(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, made)
    assert found["layout"] == "explicit-prompt (has prompt, chosen, rejected)"
    assert found["account"] == {"rows_in": 5, "kept": 3, "quarantined": 1, "dropped": {"duplicate": 1}}
    assert found["bad_rows"]["codes"] == {"BROKEN_JSON": 1}
    assert found["bad_rows"]["first"].startswith(f"{made}:2:1 · broken JSON")
    assert found["turns"] == {"1": 3}
    assert found["longer_wins"]["value"] == pytest.approx(2 / 3)
    assert (found["longer_wins"]["n"], found["longer_wins"]["clusters"]) == (3, 3)
    assert found["shared_opening"]["share_of_pairs"] == pytest.approx(1 / 3)
    assert found["shared_opening"]["characters"]["p100"] == 2
    assert (found["score_margin"]["n"], found["score_margin"]["mean"]) == (2, 1.5)
    assert found["characters"]["rejected"]["p50"] == 3
    letters = found["scripts"]
    assert letters["Cyrillic"] == 2 * letters["Han"] > 0
    assert sum(letters.values()) == pytest.approx(1)
    assert [sample["id"] for sample in found["samples"]] == ["made:1", "made:3", "made:5"]
    assert "tokens" not in found


def test_the_terminal_shows_marks_where_characters_would_act(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(made)]) == 0
    out = capsys.readouterr().out
    assert "A␛[2J<U+202E>" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    for expected in ("5 = 3 kept + 1 bad + 1 dropped", "BROKEN_JSON 1", "66.7%", "duplicate 1", "Cyrillic"):
        assert expected in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_run_holds_what_was_found(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(made), "--output", str(tmp_path / "run")]) == 0
    run = runs.load(tmp_path / "run")
    assert run.row_counts == [{"stage": "read", "rows_in": 5, "kept": 3, "quarantined": 1, "dropped": {"duplicate": 1}}]
    assert run.metrics["longer_wins"]["n"] == 3
    entries = [json.loads(line) for line in (run.path / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert [(entry["line"], entry["code"]) for entry in entries] == [(2, "BROKEN_JSON"), (4, "duplicate")]
    assert cli.main(["inspect", str(made), "--output", str(tmp_path / "run")]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main(["inspect", "--config", str(run.path / "config.yaml"), "--overwrite"]) == 0


def test_a_limit_on_bad_rows_stops_it_all_the_same(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(made), "--max-bad-rows", "0"]) == 3
    assert "1 bad row, more than --max-bad-rows 0" in capsys.readouterr().err
    assert inspected(capsys, made, "--limit", 1)["account"]["rows_in"] == 1
    assert inspected(capsys, made, "--layout", "explicit-prompt")["layout"].endswith("(named by --layout)")


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x\n{}\n")
    assert cli.main(["inspect", str(tmp_path / "a.jsonl"), "--json"]) == 3
    captured = capsys.readouterr()
    assert "no usable rows among 2" in captured.err
    assert captured.out == ""


def test_lengths_in_tokens(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, made, "--tokenizer", "scratch(vocab=300)")
    assert found["tokens"]["rejected"]["n"] == 3
    assert 1 <= found["tokens"]["rejected"]["p0"] <= 4


@pytest.mark.parametrize("kind", ["candidates", "unpaired"])
def test_other_kinds_of_rows(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = {"instruction": "Why?", "completions": [{"response": r, "overall_score": len(r)} for r in ("a", "bcd")]}
    labelled = {"prompt": "Why?", "completion": "So.", "label": True}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(several if kind == "candidates" else labelled))
    found = inspected(capsys, path)
    assert found["holds"] == kind
    assert "longer_wins" not in found
    assert list(found["characters"]) == (["responses"] if kind == "candidates" else ["desirable"])
    assert found.get("score_margin", {}).get("mean") == (2 if kind == "candidates" else None)
    assert cli.main(["inspect", str(path)]) == 0


def test_real_data(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_data / "hh" / "harmless-base_test.jsonl.gz"
    found = inspected(capsys, path)
    assert found["account"]["rows_in"] == 2312
    assert found["account"]["dropped"] == {"prompts_differ": 5, "empty_response": 4}
    pairs = reading.load(path).preferences
    lengths = np.array([[len(p.chosen.text), len(p.rejected.text)] for p in pairs])
    wins = (lengths[:, 0] > lengths[:, 1]).mean() + (lengths[:, 0] == lengths[:, 1]).mean() / 2
    assert found["longer_wins"]["value"] == pytest.approx(wins)
    assert found["longer_wins"]["low"] < wins < found["longer_wins"]["high"]
    assert found["characters"]["chosen"]["p50"] == np.median(lengths[:, 0])
    assert found["scripts"]["Latin"] > 0.99
    assert len(found["samples"]) == 10
    assert cli.main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [line for line in lines if line.startswith(("  ? ", "  + ", "  - "))]
    assert len(shown) == 30
    assert any(line.endswith("…") for line in shown)


# --- the measures themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letter", "script"),
    [
        *(("a", "Latin"), ("é", "Latin"), ("ａ", "Latin"), ("я", "Cyrillic"), ("α", "Greek"), ("م", "Arabic")),
        *(("好", "Han"), ("の", "Hiragana"), ("한", "Hangul"), ("ש", "Hebrew"), ("ก", "Thai"), ("ʰ", "other")),
    ],
)
def test_scripts_have_their_usual_names(letter: str, script: str) -> None:
    assert script_of(letter) == script


def test_visible_keeps_what_is_harmless() -> None:
    assert visible(" a\nb\tc\0\x7f\x9b\u200b🦉👩\u200d👧é日 ") == "a⏎b␉c␀<U+007F><U+009B><U+200B>🦉👩\u200d👧é日"


def words(start: int, count: int = 40) -> str:
    return " ".join(f"w{number}" for number in range(start, start + count))


def test_near_duplicates_are_found_and_others_are_not() -> None:
    texts = {str(n): words(100 * n) for n in range(200)}
    assert near_duplicates(texts).having_one == 0
    found = near_duplicates(texts | {"near": words(700) + " w", "far": words(820)})
    assert (found.prompts, found.having_one, found.pairs) == (202, 2, (("7", "near"),))
    assert NEAR > 18 / 58  # what `far` shares with 8


def test_the_sample_is_drawn_from_all_rows() -> None:
    profile = Profile()
    for number in range(12_000):
        profile.add(
            Preference(
                prompt=(Message("user", str(number)),), chosen=Response("a"), rejected=Response("b"), id=str(number)
            )
        )
    drawn = [int(record.id) for record in profile.sample]
    assert len(set(drawn)) == 5000
    # A uniform draw: its mean has a standard error of about 37.
    assert np.mean(drawn) == pytest.approx(6000, abs=200)


def test_a_spread_has_its_quantiles() -> None:
    assert spread(range(101)) == (101, 50.0, (0, 5, 25, 50, 75, 95, 100))
    assert spread([]).n == 0


def test_words_that_tell_and_points_for_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"".join(row(n, f"Splendid {n} thing.", f"Ghastly {n} thing.") for n in range(40)))
    found = inspected(capsys, path, "--output", tmp_path / "run", "--embed", 12)
    assert [term["term"] for term in found["terms"]["chosen"]] == ["splendid"]
    assert found["terms"]["rejected"][0]["chosen"] == 0 and found["terms"]["pairs"] == 40
    points = json.loads((tmp_path / "run" / "embedding.json").read_text())
    assert points["pairs"] == 12 and len(points["points"]) == 24
    assert cli.main(["inspect", str(path)]) == 0
    assert "more in chosen" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [(["--embed", "20"], "--output"), (["--embed", "3"], "not in")])
def test_points_that_could_not_be_kept_or_seen_are_refused(
    made: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", str(made), *arguments]) == 2
    assert says in capsys.readouterr().err
