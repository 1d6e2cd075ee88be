"""S3 of the fault matrix: nothing that could be a pickle is opened as one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from headwater.data.corpus import Corpus, generate
from headwater.data.tokens import PairTokens
from headwater.data.writing import write
from headwater.training.reference import Reference
from tests.faults.outcome import Command, runner
from tests.support.serving import save_policy

SCRATCH = "scratch(hidden=32, layers=1, vocab=300)"
pytestmark = pytest.mark.fault("S3")


class Payload:
    """A pickle that makes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._marker),)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(capfd)


@pytest.fixture
def payload(tmp_path: Path) -> bytes:
    return pickle.dumps(Payload(tmp_path / "marker"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=20, seed=1)))
    return tmp_path / "pairs.jsonl"


def test_the_payload_works(payload: bytes, tmp_path: Path) -> None:
    pickle.loads(payload)  # noqa: S301 - what the other tests must not do
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_weights_in_a_pickle_are_refused(name: str, payload: bytes, data: Path, run: Command, tmp_path: Path) -> None:
    model = save_policy(tmp_path / "model", generate(Corpus(pairs=20, seed=1)), SCRATCH)
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(payload)
    run("train-dpo", "--data", data, "--model", model, "--output", tmp_path / "run").refused(4, str(model))
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "run").exists()


def test_a_pickle_in_the_reference_cache_is_made_anew(
    payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[PairTokens]
) -> None:
    from headwater.models import loading

    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    model, _ = loading.load(SCRATCH.replace("300", "512"), "policy", generate(Corpus(pairs=60, seed=1)), 0)
    reference = Reference(model, 2048, False)
    expected = [np.array(one.chosen_reference) for one in reference.stored(pairs[:4])]
    for file in (tmp_path / "cache").rglob("*.npy"):
        np.save(file, np.array([Payload(tmp_path / "marker")], dtype=object), allow_pickle=True)
    again = reference.stored(pairs[:4])
    assert not (tmp_path / "marker").exists()
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other.chosen_reference)
