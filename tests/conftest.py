"""Fixtures: tiny models built from configs, a tokenizer trained in-process, and the real data where it lies."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Preference
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, texts_of
from headwater.data.tokens import PairTokens, tokenize
from tests.faults.matrix import Record
from tests.support.browser import CHROMIUM, Browser
from tests.support.scripted import Server, scripted_server

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parent.parent
FAULTS = Record()

# A slow machine is no fault of the code: examples have no time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Keep what the imports have built out of every later garbage collection, of which each training makes one."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    FAULTS.add([str(value) for name, value in report.user_properties if name == "fault"], report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FAULTS.passed or FAULTS.failed:
        terminalreporter.write_line("\n".join(FAULTS.lines()))


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own: no test reads what another session left."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["HEADWATER_CACHE"] = str(path)
    return path


@pytest.fixture(scope="session")
def corpus() -> list[Preference]:
    return generate(Corpus(pairs=60, seed=1))


@pytest.fixture(scope="session")
def tokenizer(corpus: list[Preference]) -> Tokenizer:
    return ScratchTokenizer(vocab=512).train(texts_of(corpus))


@pytest.fixture(scope="session")
def pairs(corpus: list[Preference], tokenizer: Tokenizer) -> list[PairTokens]:
    return tokenize(corpus, tokenizer, 512)[0]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Where the real data lies; a test that asks for it is skipped where there is none."""
    path = Path(os.environ.get("HEADWATER_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set HEADWATER_DATA to a folder that holds it")
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium for pages: `browser.visit(path.as_uri())`, then `problems`, `requests`, `run(javascript)`."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; Debian: apt install chromium")
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as its `script` says, and keeps what it was asked."""
    with scripted_server() as found:
        yield found


@pytest.fixture(scope="session")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, http://127.0.0.1:PORT/v1, of a real server; any saved policy's path is a model that it knows."""
    from transformers.utils.import_utils import is_serve_available

    from tests.support.serving import transformers_server

    if not is_serve_available():
        pytest.skip("transformers cannot serve: fastapi, uvicorn and openai are not installed (pip install '.[test]')")
    with transformers_server(tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address


@pytest.fixture(scope="session")
def served_policy(corpus: list[Preference], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with random weights: what it says has no sense, and differs from draw to draw."""
    from tests.support.serving import save_policy

    return save_policy(tmp_path_factory.mktemp("policy") / "p", corpus, "scratch(hidden=32, layers=1, vocab=400)")


def random_pairs(lengths: list[tuple[int, int, int]], vocab: int, seed: int = 0) -> list[PairTokens]:
    """Pairs of random tokens with the given (prompt, chosen, rejected) lengths."""
    rng = np.random.default_rng(seed)
    draw = [[rng.integers(5, vocab, n).astype(np.int32) for n in sizes] for sizes in lengths]
    return [
        PairTokens(*ids, id=f"r:{i}", source="r", conversation_id=f"o{i}", key=f"k{i}", row=i)
        for i, ids in enumerate(draw)
    ]
