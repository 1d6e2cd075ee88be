"""Reference values: computed once, read for every cut, never wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.commands import train_dpo
from headwater.data import reading, token_cache
from headwater.data.corpus import Corpus, generate
from headwater.data.tokens import PairTokens
from headwater.data.truncation_options import TruncationOptions
from headwater.forward.passes import with_reference
from headwater.results import runs
from headwater.training import reference
from headwater.training.options import TrainingOptions
from headwater.training.reference import Reference
from tests.forward.test_parity import pairs_with_openings, policy

COMPUTED: list[int] = []
FIELDS = ("chosen_reference", "rejected_reference")


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of each test's own; how many pairs are computed for a file is written down."""
    COMPUTED.clear()
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))
    compute = reference.each_token_values

    def count(model: Any, read: Any, pairs: Any, *others: Any) -> Any:
        COMPUTED.append(len(pairs))
        return compute(model, read, pairs, *others)

    monkeypatch.setattr(reference, "each_token_values", count)


def reference_of(dtype: torch.dtype = torch.float32, seed: int = 0) -> Reference:
    model = policy("llama", dtype)
    if seed:
        with torch.no_grad():
            model.lm_head.weight.add_(0.1)  # type: ignore[union-attr, operator]
    return Reference(model, 40, bf16=False)


def same(pairs: list[PairTokens], others: list[PairTokens]) -> bool:
    return all(
        np.allclose(getattr(one, field), getattr(other, field), rtol=0, atol=1e-5)
        for one, other in zip(pairs, others, strict=True)
        for field in FIELDS
    )


def cut(pairs: list[PairTokens], count: int) -> list[PairTokens]:
    return [pair._replace(chosen=pair.chosen[:count], rejected=pair.rejected[:count]) for pair in pairs]


def test_stored_values_are_those_computed_in_memory_and_are_read_the_second_time() -> None:
    given, pairs = reference_of(), pairs_with_openings()
    direct = with_reference(given.model, pairs, 40, "shared")
    assert same(given.fill(pairs, pairs), direct)
    assert same(given.fill(pairs, pairs), direct)
    assert [len(pairs)] == COMPUTED


@pytest.mark.parametrize("count", [1, 3])
def test_whole_responses_serve_every_cut(count: int) -> None:
    given, pairs = reference_of(), pairs_with_openings()
    given.fill(pairs, pairs)
    short = cut(pairs, count)
    assert same(given.fill(short, pairs), with_reference(given.model, short, 40, "shared"))
    assert [len(pairs)] == COMPUTED, "nothing is computed for a cut"


def test_a_pair_that_is_not_how_a_whole_one_begins_is_computed_apart(capsys: pytest.CaptureFixture[str]) -> None:
    given, pairs = reference_of(), pairs_with_openings()
    short = cut(pairs, 3)
    short[1] = short[1]._replace(chosen=np.array([7, 7], dtype=np.int32))
    assert same(given.fill(short, pairs), with_reference(given.model, short, 40, "shared"))
    assert "1 of 5 pairs are not how whole ones begin" in capsys.readouterr().err


def test_whole_responses_are_not_read_where_they_cost_far_more() -> None:
    given, pairs = reference_of(), pairs_with_openings()
    long = [pair._replace(chosen=np.resize(pair.chosen, 500)) for pair in pairs]
    given.fill(pairs, long)
    (stored,) = (token_cache.home() / "reference").glob("*.npy")
    assert len(np.load(stored)) == sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)


@pytest.mark.parametrize("change", ["weights", "tokens", "precision"])
def test_another_model_data_or_precision_has_another_file(change: str) -> None:
    pairs = pairs_with_openings()
    reference_of().fill(pairs, pairs)
    if change == "tokens":
        pairs[2] = pairs[2]._replace(chosen=pairs[2].chosen[::-1].copy())
    given = {
        "weights": lambda: reference_of(seed=1),
        "tokens": reference_of,
        "precision": lambda: Reference(policy("llama", torch.float32), 40, bf16=True),
    }[change]()
    filled = given.fill(pairs, pairs)
    assert [len(pairs), len(pairs)] == COMPUTED
    if change != "precision":
        assert same(filled, with_reference(given.model, pairs, 40, "shared"))


@pytest.mark.parametrize("damage", ["bytes", "length", "about", "another model's"])
def test_a_wrong_file_is_never_used(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    given, pairs = reference_of(), pairs_with_openings()
    expected = with_reference(given.model, pairs, 40, "shared")
    given.fill(pairs, pairs)
    (path,) = (token_cache.home() / "reference").glob("*.npy")
    values = np.load(path)
    if damage == "bytes":
        np.save(path, values + np.eye(1, len(values), 5, dtype=np.float32)[0])
    elif damage == "length":
        np.save(path, values[:-1])
    elif damage == "about":
        path.with_suffix(".json").write_text("{}")
    else:
        np.save(path, values - 1.0)
        path.with_suffix(".json").write_text(f'{{"checksum": "{reference._checksum(values - 1.0)}"}}')
    assert same(given.fill(pairs, pairs), expected)
    assert "it is made anew" in capsys.readouterr().err
    assert same(given.fill(pairs, pairs), expected)
    assert [len(pairs), len(pairs)] == COMPUTED


def test_values_are_mapped_not_read() -> None:
    given, pairs = reference_of(), pairs_with_openings()
    assert isinstance(given.fill(pairs, pairs)[0].chosen_reference, np.memmap)


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "file"))
    with pytest.raises(reference.UsageError, match="set HEADWATER_CACHE"):
        reference_of().fill(pairs_with_openings(), pairs_with_openings())


def test_beginnings_are_trained_on_where_every_whole_response_is_too_long(tmp_path: Path) -> None:
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=8)))
    options = TrainingOptions(eval_fraction=0.0, precision="fp32", per_device_train_batch_size=8)
    found = train_dpo.Config(
        data=tmp_path / "pairs.jsonl",
        output=tmp_path / "dpo",
        model="scratch(hidden=32, layers=1, vocab=300)",
        truncation=TruncationOptions(keep="2tok", max_length=200),
        training=options,
    )
    assert runs.load(train_dpo.run(found)).metrics["train_pairs"] == 8
