"""`preprocess` as a stream: bounded batches, shards, nothing left behind by a refusal, and what a cut saves."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.commands import preprocess
from headwater.data import reading, truncation
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Candidates, Message, Preference, Response
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, texts_of
from headwater.data.tokens import token_ends
from headwater.data.truncation import Keep, Truncation, shortened, truncate
from headwater.data.truncation_effect import TruncationEffect, flops_saved
from headwater.data.writing import write
from headwater.results import runs

HALF = Keep(Fraction(1, 2))


@pytest.fixture(scope="module")
def rows() -> list[Preference]:
    return generate(Corpus(pairs=300, seed=4))


@pytest.fixture
def pairs(rows: list[Preference], tmp_path: Path) -> Path:
    (written,) = reading.write(tmp_path / "pairs.jsonl", rows)
    return written


def run(pairs: Path, output: Path, *flags: str) -> int:
    return cli.main(["preprocess", "--input", str(pairs), "--output", str(output), "--keep", "0.5", *flags])


def texts(records: list[Preference]) -> list[tuple[str, str, str]]:
    return [(p.id, p.chosen.text, p.rejected.text) for p in records]


def test_the_file_is_what_truncation_in_memory_gives(rows: list[Preference], pairs: Path, tmp_path: Path) -> None:
    assert len(rows) > truncation.BATCH, "one batch shows nothing"
    assert run(pairs, tmp_path / "cut.jsonl") == 0
    tokenizer = ScratchTokenizer().train(texts_of(rows))
    expected = truncate(rows, Truncation(HALF), token_ends(tokenizer))
    assert reading.load(tmp_path / "cut.jsonl").preferences == expected.preferences
    written = runs.load(tmp_path / "cut.jsonl.run")
    assert written.metrics == expected.figures()
    assert written.row_counts[1]["kept"] == len(expected.preferences)


@pytest.mark.parametrize("batch", [1, 7, 300, 1000])
def test_the_size_of_a_batch_changes_nothing(
    batch: int, rows: list[Preference], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = truncate(rows, Truncation(HALF), token_ends(tokenizer))
    monkeypatch.setattr(truncation, "BATCH", batch)
    assert truncate(rows, Truncation(HALF), token_ends(tokenizer)) == whole


def test_a_stream_is_read_no_more_than_two_batches_ahead(rows: list[Preference], tokenizer: Tokenizer) -> None:
    read = 0

    def counted() -> Any:
        nonlocal read
        for preference in [*rows, *rows, *rows]:
            read += 1
            yield preference

    effect = TruncationEffect()
    stream = shortened(counted(), Truncation(HALF), token_ends(tokenizer), effect)
    for number, _ in enumerate(stream, start=1):
        assert read <= effect.row_counts.rows_in + 2 * truncation.BATCH
        if number == 1:
            assert read < 3 * len(rows)
    assert read == effect.row_counts.rows_in == 3 * len(rows)


@pytest.mark.parametrize("name", ["cut.jsonl", "cut.jsonl.gz", "cut.parquet"])
def test_shards_hold_every_row_once_and_know_their_run(
    name: str, rows: list[Preference], pairs: Path, tmp_path: Path
) -> None:
    assert run(pairs, tmp_path / name) == 0
    assert run(pairs, tmp_path / "deep" / name, "--shards", "3") == 0
    stem, dot, suffix = name.partition(".")
    shards = [tmp_path / "deep" / f"{stem}-0000{number}-of-00003{dot}{suffix}" for number in (1, 2, 3)]
    assert sorted((tmp_path / "deep").iterdir()) == sorted([*shards, tmp_path / "deep" / f"{name}.run"])
    parts = [reading.load(shard).preferences for shard in shards]
    together = reading.load(tmp_path / "deep" / f"{stem}-*-of-*{dot}{suffix}").preferences
    assert texts(together) == texts(parts[0] + parts[1] + parts[2])
    dealt = [part[number] for number in range(len(parts[0])) for part in parts if number < len(part)]
    assert texts(dealt) == texts(reading.load(tmp_path / name).preferences)
    for place in (shards[1], tmp_path / "deep" / f"{stem}-*-of-*{dot}{suffix}"):
        assert runs.facts_of(place)["keep"] == 0.5
    assert runs.facts_of(tmp_path / "deep" / f"{stem}-40{dot}{suffix}") == {}


@pytest.mark.parametrize(
    ("output", "flags", "message"),
    [
        ("cut", ["--shards", "2"], "cut is a run directory · name a file"),
        ("cut.jsonl", ["--shards", "0"], "--shards 0 · expected 1 to 200"),
        ("taken.jsonl", ["--shards", "2"], "taken-00002-of-00002.jsonl · already exists"),
        ("cut.txt", [], "unknown kind of file"),
    ],
)
def test_shards_that_cannot_be_are_refused(
    output: str, flags: list[str], message: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken-00002-of-00002.jsonl").touch()
    assert run(pairs, tmp_path / output, *flags) == 2
    assert message in capsys.readouterr().err


BROKEN = b"broken" + bytes([10])


@pytest.mark.parametrize(
    ("flags", "last", "message"),
    [([], BROKEN, "broken JSON"), (["--keep", "1tok"], b"", "no row is left"), (["--format", "x"], b"", "no such")],
)
@pytest.mark.parametrize("output", ["cut.jsonl", "folder"])
def test_a_refusal_leaves_an_earlier_output_as_it_was(
    output: str, flags: list[str], last: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"prompt": f"{n}", "chosen": f"a {n}", "rejected": f"a b{n}"}) for n in range(600)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(chr(10).join(lines) + chr(10))
    new = tmp_path / "new" / output
    arguments = ["preprocess", "--input", str(pairs), "--tokenizer", "scratch(vocab=300)"]
    assert cli.main([*arguments, "--keep", "0.9", "--output", str(tmp_path / output)]) == 0
    pairs.write_bytes(pairs.read_bytes() + last)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    keep = flags if "--keep" in flags else [*flags, "--keep", "0.9"]
    for place in (tmp_path / output, new):
        assert cli.main([*arguments, *keep, "--output", str(place), "--overwrite"]) in (2, 3)
        assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not new.parent.exists()


def test_other_kinds_of_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    answers = (Response("So."), Response("Because."))
    write(path, [Candidates(prompt=(Message("user", "Why?"),), id="0", responses=answers)])
    assert run(path, tmp_path / "cut.jsonl") == 3
    assert "holds several responses a row" in capsys.readouterr().err
    path.write_bytes(BROKEN)
    assert run(path, tmp_path / "cut.jsonl", "--max-bad-rows", "5") == 3
    assert "no usable rows among 1" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_flops_saved_add_up_over_two_cuts(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pairs, tmp_path / "half.jsonl") == 0
    said = capsys.readouterr().err
    first = runs.load(tmp_path / "half.jsonl.run")
    saved = first.metrics["flops_saved"]
    assert f"training FLOPs saved: about {saved:.0%}" in said
    assert 0.2 < saved < 0.5, "half of the responses is less than half of prompts and responses"
    assert first.facts["flops_saved"] == pytest.approx(saved)
    assert run(tmp_path / "half.jsonl", tmp_path / "quarter.jsonl") == 0
    second = runs.load(tmp_path / "quarter.jsonl.run")
    both = 1 - (1 - saved) * (1 - second.metrics["flops_saved"])
    assert second.facts["flops_saved"] == pytest.approx(both)
    assert both > saved


def test_the_estimate_is_close_to_the_tokens_themselves(rows: list[Preference], tokenizer: Tokenizer) -> None:
    def tokens(texts: list[str]) -> int:
        return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))

    result = truncate(rows, Truncation(HALF), token_ends(tokenizer))
    prompts = tokens([message.content for p in rows for message in p.prompt])
    assert len(result.preferences) == len(rows)
    exact = flops_saved(prompts, result.after.tokens.total(), result.before.tokens.total())
    assert result.flops_saved == pytest.approx(exact, abs=0.05)


def test_it_is_a_plain_python_call(pairs: Path, tmp_path: Path) -> None:
    config = preprocess.Config(input=pairs, output=tmp_path / "folder", keep="0.5")
    assert preprocess.run(config) == tmp_path / "folder" / reading.PREFERENCES
