from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from headwater.data import preparation, templates, token_cache
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.templates import CHATML
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens
from headwater.data.truncation import Keep, Truncation

VIEW = EncodeOptions(Truncation(Keep(Fraction(1, 10))), "complete", 60)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    yield


def same(one: list[PairTokens], other: list[PairTokens]) -> bool:
    return len(one) == len(other) and all(
        type(a) is type(b) and (np.array_equal(a, b) and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_a_second_run_reads_what_the_first_one_made(
    corpus: list[Preference], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = PrepLog(), PrepLog()
    made = prepare("part", corpus, VIEW, tokenizer, first)

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(preparation, "_made", never)
    assert same(prepare("part", corpus, VIEW, tokenizer, second), made)
    assert first == second
    assert first.stages["tokenize, part"].dropped, "the view should drop something, or the counts show little"


def test_the_key_changes_with_everything_that_ids_depend_on(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    row = corpus[0]
    other_template, other_tokens = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    other_template.chat_template = CHATML + " "
    other_tokens.add_tokens(["zebra"])
    other_end = copy.deepcopy(tokenizer)
    other_end.eos_token = "<|pad|>"
    keys = [
        token_cache.key([row], VIEW, tokenizer),
        token_cache.key([row], VIEW, other_template),
        token_cache.key([row], VIEW, other_tokens),
        token_cache.key([row], VIEW, other_end),
        token_cache.key([row], replace(VIEW, end="always"), tokenizer),
        token_cache.key([row], replace(VIEW, max_length=61), tokenizer),
        token_cache.key([row], replace(VIEW, truncation=Truncation(cut="equal")), tokenizer),
        token_cache.key([row, row], VIEW, tokenizer),
        token_cache.key([replace(row, chosen=replace(row.chosen, text="x"))], VIEW, tokenizer),
        token_cache.key([replace(row, chosen=replace(row.chosen, complete=False))], VIEW, tokenizer),
        token_cache.key([replace(row, chosen=row.rejected, rejected=row.chosen)], VIEW, tokenizer),
        token_cache.key([replace(row, prompt=row.prompt[:0])], VIEW, tokenizer),
    ]
    assert len(set(keys)) == len(keys)
    assert token_cache.key([copy.deepcopy(row)], VIEW, tokenizer) == keys[0]


def test_a_prompt_with_a_date_is_made_anew_on_another_day(
    corpus: list[Preference], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%Y-%m-%d') }}" + CHATML
    today = token_cache.key(corpus[:1], VIEW, dated)
    assert token_cache.key(corpus[:1], VIEW, dated) == today

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Later:  # type: ignore[override]
            return cls(2031, 5, 17)

    monkeypatch.setattr(templates, "datetime", Later)
    templates._dated.cache_clear()
    assert token_cache.key(corpus[:1], VIEW, dated) != today
    templates._dated.cache_clear()


@pytest.mark.parametrize("damage", ["cut", "flip the header", "flip a token", "empty"])
def test_a_damaged_entry_is_made_anew(damage: str, corpus: list[Preference], tokenizer: Tokenizer) -> None:
    made = prepare("part", corpus, VIEW, tokenizer, PrepLog())
    (path,) = token_cache.folder().iterdir()
    raw = path.read_bytes()
    damaged = {
        "cut": raw[: len(raw) // 2],
        "flip the header": b"\xff" + raw[1:],
        "flip a token": raw[:-8] + bytes([raw[-8] ^ 1]) + raw[-7:],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    assert token_cache.load(path.stem, corpus) is None
    assert same(prepare("part", corpus, VIEW, tokenizer, PrepLog()), made)
    again = token_cache.load(path.stem, corpus)
    assert again is not None
    assert same(again.pairs, made)


def test_ids_do_not_count(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    made = prepare("part", corpus, VIEW, tokenizer, PrepLog())
    for ids in (["same"] * len(corpus), [row.id for row in corpus[::-1]]):
        rows = [replace(row, id=name) for row, name in zip(corpus, ids, strict=True)]
        found = prepare("part", rows, VIEW, tokenizer, PrepLog())
        assert same([pair._replace(id="") for pair in found], [pair._replace(id="") for pair in made])
        assert [pair.id for pair in found] == [rows[pair.row].id for pair in found]
    assert len(list(token_cache.folder().iterdir())) == 1


def test_a_cache_that_cannot_be_written_stops_nothing(
    corpus: list[Preference], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "file"))
    assert prepare("part", corpus, VIEW, tokenizer, PrepLog())
