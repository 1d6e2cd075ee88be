"""D1 to D23 of the fault matrix: bad data, through the command line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.faults.outcome import Command, Outcome, pair, row_counts, runner, write_rows

GOOD = [pair(number) for number in range(8)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(capfd)


def preprocess(run: Command, data: Path, *flags: str) -> tuple[Outcome, Path]:
    output = data.with_name("out.jsonl")
    return run("preprocess", "--input", data, "--output", output, "--keep", "100%", *flags), Path(f"{output}.run")


def chosen_of(data: Path) -> str:
    """The text of the first chosen response."""
    messages = json.loads(data.read_text(encoding="utf-8").splitlines()[0])["chosen"]
    text: str = messages[-1]["content"]
    return text


def with_row(path: Path, row: Any, place: int = 5) -> Path:
    return write_rows(path, *GOOD[: place - 1], row, *GOOD[place:])


QUARANTINED = {
    "D1": (b'{"prompt": "Why?", "chosen" x}', "BROKEN_JSON"),
    "D3": (pair(5, chosen=[1, 2]), "MALFORMED"),
    "D4": ({"prompt": "Why?", "chosen": "a"}, "MISSING"),
    "D4 null": (pair(5, rejected=None), "MALFORMED"),
    "D5": (b"5", "NOT_OBJECT"),
    "D6": (b'{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}', "DUPLICATE_KEY"),
    "D7": (b'{"prompt": "a", "chosen": "\\ud83d", "rejected": "d"}', "UNICODE"),
    "D8": (b'{"prompt": "a\xff", "chosen": "b", "rejected": "d"}', "UNICODE"),
    "D16": (pair(5, prompt=[{"role": "oracle", "content": "Why?"}]), "ROLE"),
}


@pytest.mark.parametrize(
    ("row", "code"),
    [pytest.param(*found, marks=pytest.mark.fault(name.split()[0]), id=name) for name, found in QUARANTINED.items()],
)
def test_a_bad_row_is_refused_by_its_place_or_set_aside(row: Any, code: str, run: Command, tmp_path: Path) -> None:
    data = with_row(tmp_path / "f.jsonl", row)
    refused, _ = preprocess(run, data)
    refused.refused(3, "f.jsonl:5", "--max-bad-rows 0")
    assert not (tmp_path / "out.jsonl").exists()
    let, home = preprocess(run, data, "--max-bad-rows", "1")
    assert let.code == 0
    found = row_counts(home)
    assert (found["rows_in"], found["kept"], found["quarantined"]) == (8, 7, 1)
    aside = [json.loads(line) for line in (home / "quarantine.jsonl").read_text().splitlines()]
    assert [(one["code"], one["line"]) for one in aside] == [(code, 5)]


@pytest.mark.fault("D2")
def test_a_torn_last_line_is_named_as_such(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    data.write_bytes(data.read_bytes()[:-12])
    refused, _ = preprocess(run, data)
    refused.refused(3, "f.jsonl:8", "looks cut")


@pytest.mark.fault("D8")
@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte order mark"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="CRLF"),
    ],
)
def test_marks_of_other_systems_change_nothing(encode: Callable[[bytes], bytes], run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    data.write_bytes(encode(data.read_bytes()))
    found, home = preprocess(run, data)
    assert found.code == 0
    assert row_counts(home)["kept"] == 8


@pytest.mark.fault("D8")
def test_another_encoding_is_named(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    data.write_bytes(data.read_text().encode("utf-16"))
    preprocess(run, data)[0].refused(3, "f.jsonl", "UTF-16")


@pytest.mark.fault("D9")
def test_control_characters_stay_in_the_data_and_are_shown_as_marks(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", pair(0, chosen="a\x1b[31mb\u202ec\x00d"), *GOOD[1:])
    found, _ = preprocess(run, data)
    assert found.code == 0
    assert chosen_of(tmp_path / "out.jsonl") == "a\x1b[31mb\u202ec\x00d"
    shown = run("inspect", data)
    assert shown.code == 0
    assert not set("\x1b\u202e\x00") & set(shown.out + shown.err)


DROPPED = {
    "D10": (pair(4, chosen="  \n"), "empty_response"),
    "D11": (pair(4, chosen="The same.", rejected="The same. "), "identical_responses"),
    "D12": (GOOD[0], "duplicate"),
    "D12 flipped": ({**GOOD[0], "chosen": GOOD[0]["rejected"], "rejected": GOOD[0]["chosen"]}, "flipped_label"),
}


@pytest.mark.parametrize(
    ("row", "reason"),
    [pytest.param(*found, marks=pytest.mark.fault(name.split()[0]), id=name) for name, found in DROPPED.items()],
)
def test_a_row_without_a_preference_is_dropped_and_counted(row: Any, reason: str, run: Command, tmp_path: Path) -> None:
    found, home = preprocess(run, with_row(tmp_path / "f.jsonl", row))
    assert found.code == 0
    assert row_counts(home)["dropped"] == {reason: 1}


@pytest.mark.fault("D11")
def test_a_pair_that_a_cut_makes_equal_is_counted_for_its_ratio(run: Command, tmp_path: Path) -> None:
    words = "one two three four five six seven"
    data = with_row(tmp_path / "f.jsonl", pair(4, chosen=f"{words} eight", rejected=f"{words} nine"))
    found = run("preprocess", "--input", data, "--output", tmp_path / "cut.jsonl", "--keep", "50%")
    assert found.code == 0
    assert row_counts(tmp_path / "cut.jsonl.run", "truncate")["dropped"] == {"identical_responses": 1}


@pytest.mark.fault("D13")
def test_training_refuses_prompts_of_the_evaluation(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    other = write_rows(tmp_path / "g.jsonl", pair(1, chosen="Another answer."), pair(99))
    output = tmp_path / "run"
    model = "scratch(hidden=32, layers=1, vocab=300)"
    found = run("train-dpo", "--data", data, "--eval-data", other, "--model", model, "--output", output)
    found.refused(3, "--leakage")
    assert not output.exists()


@pytest.mark.fault("D14")
def test_a_common_beginning_stays_in_the_responses(run: Command, tmp_path: Path) -> None:
    text = "\n\nHuman: What is it?\n\nAssistant: It is bl"
    rows = [{"chosen": f"{text}ue {n}", "rejected": f"{text}ack {n}"} for n in range(3)]
    found, _ = preprocess(run, write_rows(tmp_path / "f.jsonl", *rows))
    assert found.code == 0
    assert chosen_of(tmp_path / "out.jsonl") == "It is blue 0"


@pytest.mark.fault("D15")
def test_a_dialogue_without_a_boundary_is_refused_and_one_with_two_prompts_dropped(
    run: Command, tmp_path: Path
) -> None:
    def dialogue(prompt: object, answer: str) -> str:
        return f"\n\nHuman: {prompt}\n\nAssistant: {answer}"

    good = [{"chosen": dialogue(n, "a"), "rejected": dialogue(n, "b")} for n in range(4)]
    data = write_rows(tmp_path / "f.jsonl", *good[:2], {"chosen": "No markers.", "rejected": "None here."}, *good[2:])
    preprocess(run, data)[0].refused(3, "f.jsonl:3", "Assistant:")
    other = {"chosen": dialogue("one", "a"), "rejected": dialogue("another", "b")}
    found, home = preprocess(run, write_rows(tmp_path / "g.jsonl", *good, other))
    assert found.code == 0
    assert row_counts(home)["dropped"] == {"prompts_differ": 1}


@pytest.mark.fault("D17")
@pytest.mark.parametrize(
    ("name", "content"),
    [("f.jsonl", b""), ("f.csv", b"prompt,chosen,rejected\n"), ("f.jsonl", b"5\n6\n"), ("f.jsonl", b"\n\n")],
    ids=["no bytes", "header only", "every row bad", "blank lines"],
)
def test_data_without_a_usable_row_is_refused(name: str, content: bytes, run: Command, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    found, _ = preprocess(run, tmp_path / name, "--max-bad-rows", "100%")
    found.refused(3, name)


@pytest.mark.fault("D18")
@pytest.mark.parametrize("rows", [1, 3])
def test_fewer_rows_than_a_batch_are_trained_on(rows: int, run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD[:rows])
    model = "scratch(hidden=32, layers=1, vocab=300)"
    flags = ("--precision", "fp32", "--num-train-epochs", "1", "--eval-fraction", "0")
    found = run("train-dpo", "--data", data, "--model", model, "--output", tmp_path / "run", *flags)
    assert found.code == 0, found.said
    assert (tmp_path / "run" / "done").exists()


@pytest.mark.fault("D19")
def test_a_prompt_that_is_too_long_is_counted(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD, pair(9, prompt="Why? " * 500))
    model = "scratch(hidden=32, layers=1, vocab=300)"
    flags = ("--precision", "fp32", "--num-train-epochs", "1", "--eval-fraction", "0", "--max-length", "200")
    found = run("train-dpo", "--data", data, "--model", model, "--output", tmp_path / "run", *flags)
    assert found.code == 0, found.said
    assert "too_long 1" in found.said


@pytest.mark.fault("D20")
def test_a_row_of_five_megabytes_is_read(run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD, pair(9, chosen="word " * 1_000_000))
    found, home = preprocess(run, data)
    assert found.code == 0
    assert row_counts(home)["kept"] == 9


@pytest.mark.fault("D21")
def test_a_file_cut_in_half_is_named(run: Command, tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in GOOD * 50))
    (tmp_path / "f.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    preprocess(run, tmp_path / "f.jsonl.gz")[0].refused(3, "f.jsonl.gz")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD), tmp_path / "g.parquet")
    half = (tmp_path / "g.parquet").read_bytes()
    (tmp_path / "g.parquet").write_bytes(half[: len(half) // 2])
    preprocess(run, tmp_path / "g.parquet")[0].refused(3, "g.parquet")
    (tmp_path / "h.parquet").write_bytes(json.dumps(GOOD[0]).encode() + b"\n")
    preprocess(run, tmp_path / "h.parquet")[0].refused(3, "h.parquet")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.fault("D23")
def test_preference_variance_needs_finite_scores_of_several_responses(run: Command, tmp_path: Path) -> None:
    def candidates(number: int, *scores: object) -> dict[str, Any]:
        texts = [{"response": f"Answer {k} to {number}.", "overall_score": score} for k, score in enumerate(scores)]
        return {"instruction": f"Why {number}?", "completions": texts}

    def select(data: Path, output: Path) -> Outcome:
        return run("select", "--input", data, "--by", "pvar", "--budget", "100%", "--output", output)

    rows = [candidates(0, 1.0, 0.5), candidates(1, 1.0), candidates(2, 0.1, 0.9)]
    found = select(write_rows(tmp_path / "c.jsonl", *rows), tmp_path / "s.jsonl")
    assert found.code == 0, found.said
    assert "nan" not in found.said.lower().split()
    broken = b'{"instruction": "a", "completions": [{"response": "b", "overall_score": NaN}]}'
    select(write_rows(tmp_path / "b.jsonl", *rows, broken), tmp_path / "t.jsonl").refused(3, "b.jsonl:4")
