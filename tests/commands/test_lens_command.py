"""`headwater lens` as a user types it: without a model, with a reward model, with a policy."""

from __future__ import annotations

import dataclasses
import json
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.commands.lens import Config
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import load_tokenizer
from headwater.data.tokens import token_ends
from headwater.errors import ModelError
from headwater.network.page_server import Server
from headwater.reporting.lens.page import PAGE
from headwater.results import runs
from headwater.signals import tokenwise
from headwater.signals.prefix_scorers import TokenRewards
from headwater.signals.tokenwise import settled
from tests.support.browser import Browser
from tests.support.commands import headwater

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.5"]


def shown(run: Path) -> Any:
    text = (run / PAGE).read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lens") / "pairs.jsonl"
    reading.write(path, generate(Corpus(pairs=60, seed=2)))
    return path


@pytest.fixture(scope="module")
def models(pairs: Path) -> dict[str, Path]:
    found = {"reward": pairs.parent / "reward", "dpo": pairs.parent / "dpo"}
    for name, output in found.items():
        assert headwater(f"train-{name}", "--data", pairs, "--output", output, "--model", MODEL, *QUICK) == 0
    return found


def test_without_a_model_texts_and_lengths_are_shown(pairs: Path, tmp_path: Path) -> None:
    assert headwater("lens", pairs, "--output", tmp_path / "run", "--pairs", 7, "--keep", "40%", "--cut", "equal") == 0
    data = shown(tmp_path / "run")
    assert (data["mode"], data["at"], data["readings"]) == ("equal", 400, [])
    preferences = reading.load(pairs).preferences
    texts = {one.id: one.chosen.text for one in preferences}
    # Parted as preprocess would cut it: by a BPE trained on all of the data, not on the seven pairs.
    ends = token_ends(load_tokenizer("scratch(vocab=4096)", preferences))
    expected = [len(found) for found in ends([texts[pair["id"]] for pair in data["entries"]])]
    found = [pair["chosen"] for pair in data["entries"]]
    assert [len(side["pieces"]) - 1 for side in found] == expected and not any(side["several"] for side in found)
    for pair in data["entries"]:
        assert "".join(pair["chosen"]["pieces"]) == texts[pair["id"]] + "<|im_end|>"
        assert pair["margins"] == [] and pair["chosen"]["scores"] == []
    run = runs.load(tmp_path / "run")
    row_counts = {stage["stage"]: stage for stage in run.row_counts}
    assert row_counts["draw"] == {
        "stage": "draw",
        "rows_in": 60,
        "kept": 7,
        "quarantined": 0,
        "dropped": {"not_drawn": 53},
    }
    assert row_counts["part"]["kept"] == len(data["entries"]) == 7 and run.metrics == {}
    assert "60 rows in, 7 shown, not drawn 53." in (tmp_path / "run" / PAGE).read_text()


def test_the_same_seed_draws_the_same_pairs(pairs: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert headwater("lens", pairs, "--output", tmp_path / name, "--pairs", 20, "--seed", seed) == 0
    one, same, other = ([pair["id"] for pair in shown(tmp_path / name)["entries"]] for name in ("one", "same", "other"))
    assert one == same != other
    order = [preference.id for preference in reading.load(pairs).preferences]
    assert one == sorted(one, key=order.index)


SIDES = ("chosen", "rejected")
ROUNDED = 5e-5
"""The page holds five digits."""


def summed(kind: str, record: dict[str, Any], side: str) -> float:
    """How far evaluate's float32 sums may lie from the lens's float64 ones: half a last place a token, two models."""
    last_place = float(np.spacing(np.float32(6 * record[f"{side}_tokens"])))  # random tokens: ln 400 < 6 nats each
    return 0.1 * record[f"{side}_tokens"] * last_place if kind == "dpo" else 0.0


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_scores_end_at_what_evaluate_says(models: dict[str, Path], pairs: Path, tmp_path: Path, kind: str) -> None:
    common = ["--model", models[kind]]
    assert headwater("lens", pairs, *common, "--output", tmp_path / "lens") == 0
    assert headwater("evaluate", "--dataset", pairs, *common, "--output", tmp_path / "evaluate") == 0
    expected = {row["id"]: row for row in runs.load(tmp_path / "evaluate").records()}
    run = runs.load(tmp_path / "lens")
    data = shown(tmp_path / "lens")
    assert {pair["id"] for pair in data["entries"]} == set(expected) and len(
        expected
    ) < 60  # the training pairs are out
    assert data["readings"][0]["sums"] == (kind == "dpo")
    for pair, record in zip(data["entries"], run.records(), strict=True):
        row = expected[pair["id"]]
        bounds = [ROUNDED * max(1, abs(row[f"{side}_reward"])) + summed(kind, record, side) for side in SIDES]
        for side, bound in zip(SIDES, bounds, strict=True):
            assert pair[side]["scores"][0][-1] == pytest.approx(row[f"{side}_reward"], rel=0, abs=bound)
            assert record[f"{side}_tokens"] == row[f"{side}_tokens"]
        margin = row["chosen_reward"] - row["rejected_reward"]
        assert record["margin"] == pytest.approx(margin, rel=0, abs=sum(bounds))
        assert pair["margins"][0] == pytest.approx(record["margin"], rel=ROUNDED)
        assert pair["depths"][0] is None or 1 <= pair["depths"][0] <= 100
    assert run.metrics["accuracy"]["n"] == len(expected)
    assert run.metrics["accuracy"] == runs.load(tmp_path / "evaluate").metrics["accuracy"]
    assert "scores the chosen response higher in" in (tmp_path / "lens" / PAGE).read_text()


def test_the_report_takes_it_as_a_run(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    assert headwater("lens", pairs, "--model", models["reward"], "--output", tmp_path / "run") == 0
    assert headwater("report", tmp_path / "run", "--output", tmp_path / "report.html") == 0


def test_pairs_of_the_training_are_shown_when_asked_for(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    flags = ["--model", models["reward"], "--output", tmp_path / "run", "--allow-leakage"]
    assert headwater("lens", pairs, *flags) == 0
    assert len(shown(tmp_path / "run")["entries"]) == 60


def test_names_and_texts_are_only_text(tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    responses = {"chosen": Response(f"yes {bad}"), "rejected": Response(f"no {bad}")}
    one = Preference(prompt=(Message("user", bad),), **responses, id=bad, source=bad)
    path = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    reading.write(path, [one])
    assert headwater("lens", path, "--output", tmp_path / "run") == 0
    page = (tmp_path / "run" / PAGE).read_text()
    assert "<img" not in page and page.count("</script>") == 2
    assert "".join(shown(tmp_path / "run")["entries"][0]["chosen"]["pieces"]).startswith(f"yes {bad}")


def test_too_long_pairs_are_counted_and_none_left_is_an_error(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headwater("lens", pairs, "--output", tmp_path / "run", "--max-length", 5) == 3
    assert "too_long 60" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("margins", "depth"),
    [
        ([1.0] * 100, 1),
        ([-1.0] * 36 + [1.0] * 64, 37),
        ([0.0] * 99 + [-1.0], 100),
        ([1.0, -1.0, 1.0] + [-2.0] * 97, 4),
        ([1.0] * 99 + [0.0], None),
    ],
)
def test_the_margin_settles_where_its_sign_last_changes(margins: list[float], depth: int | None) -> None:
    assert settled(np.array(margins)) == depth


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--beta", 0.1], "is about a model"),
        (["--allow-leakage"], "is about a model"),
        (["--tokens-per-pass", 64], "is about a model"),
        (["--model", "x", "--tokenizer", "y"], "a model has its own"),
        (["--model", "x", "--beta", 0], "expected a value above 0"),
        (["--pairs", 0], "expected 1 or more"),
        (["--max-length", 1], "expected 2 or more"),
        (["--keep", "3sent"], "the lens cuts at tokens"),
        (["--keep", "50"], "write --keep 50% for a percentage"),
        (["--keep", "9tok", "--cut", "equal"], "is the same for both"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    pairs: Path, flags: list[object], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headwater("lens", pairs, "--output", tmp_path / "run", *flags) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_reward_model_has_no_beta(models: dict[str, Path], pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert headwater("lens", pairs, "--model", models["reward"], "--beta", 0.1) == 2
    assert "is a reward model" in capsys.readouterr().err


def test_a_second_model_reads_beside_the_first(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    both = ["--model", models["reward"], "--against", models["dpo"]]
    assert headwater("lens", pairs, *both, "--output", tmp_path / "both") == 0
    assert headwater("lens", pairs, "--model", models["dpo"], "--output", tmp_path / "alone") == 0
    found, alone = shown(tmp_path / "both"), shown(tmp_path / "alone")
    assert [(one["score"], one["sums"]) for one in found["readings"]] == [("reward", False), ("implicit reward", True)]
    seen_by_either = {one["id"]: one for one in alone["entries"]}
    for entry in found["entries"]:
        other = seen_by_either[entry["id"]]
        assert entry["margins"][1] == pytest.approx(other["margins"][0], rel=1e-4)
        # Both tokenizers were trained on the same pairs, so that pieces are the same.
        assert entry["chosen"]["scores"][1] == pytest.approx(other["chosen"]["scores"][0], rel=1e-3, abs=1e-4)
    metrics = runs.load(tmp_path / "both").metrics
    assert metrics["against_accuracy"] == runs.load(tmp_path / "alone").metrics["accuracy"]


def test_a_run_of_decode_is_shown_with_its_divergence(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    decode = ["--model", models["dpo"], "--input", pairs, "--limit", 3, "--max-new-tokens", 12, "--n", 2]
    assert headwater("decode", *decode, "--output", tmp_path / "run", "--strategy", "length_control(first=4)") == 0
    assert headwater("lens", tmp_path / "run", "--output", tmp_path / "lens", "--keep", "4tok") == 0
    data = shown(tmp_path / "lens")
    rows = [json.loads(line) for line in (tmp_path / "run" / "decoded.jsonl").read_text().splitlines()]
    assert data["sides"] == ["response"] and len(data["entries"]) == len(rows) >= 4
    for entry, row in zip(data["entries"], rows, strict=True):
        side = entry["response"]
        assert "".join(side["pieces"][: len(side["pieces"]) - side["closing"]]) == row["response"]
        assert [entry["prompt"][-1][1]] == [row["prompt"][-1]["content"]]
        kl, ratio = (one[-1] for one in side["scores"])
        assert (kl, ratio) == (pytest.approx(row["kl"], rel=1e-4), pytest.approx(row["log_ratio"], rel=1e-4))
        assert side["share"][0] == 1 and side["share"][-1] == 0
        several = sum(side["several"].values()) - len(side["several"])
        assert len(side["pieces"]) + several == row["response_tokens"] == len(row["token_ends"])


@pytest.mark.parametrize("flags", [["--model", "x"], ["--cut", "equal"], ["--max-length", 9], ["--limit", 2]])
def test_flags_that_say_nothing_of_decoded_responses_are_refused(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = runs.start(tmp_path / "run", "decode", Config(data=Path("x")))
    writer.finish()
    assert headwater("lens", tmp_path / "run", *flags) == 2
    assert "decoded before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "no data is named"),
        (["--serve"], "--serve · is about a model"),
        (["--serve", "--model", "x", "--output", "y"], "nothing is written"),
        (["--serve", "--model", "x", "--pairs", 3], "is about data"),
        (["--serve", "--model", "x", "--limit", 3], "is about data"),
        (["--serve", "--model", "x", "--port", 0], "expected 1 to 65535"),
    ],
)
def test_live_flags_that_cannot_work_are_refused(
    flags: list[object], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headwater("lens", *flags) == 2
    assert problem in capsys.readouterr().err


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Start `headwater lens --serve` in a thread, and return the page's address; the end of the test stops it."""
    started: queue.Queue[Server] = queue.Queue()
    serve_forever = Server.serve_forever

    def announced(self: Server, poll_interval: float) -> None:
        started.put(self)
        serve_forever(self, 0.01)
        raise KeyboardInterrupt  # as Ctrl-C would

    monkeypatch.setattr(Server, "serve_forever", announced)
    threads: list[threading.Thread] = []
    servers: list[Server] = []

    def start(*flags: object) -> str:
        codes: list[int] = []
        threads.append(threading.Thread(target=lambda: codes.append(headwater("lens", "--serve", *flags))))
        threads[-1].start()
        servers.append(started.get(timeout=60))
        return servers[-1].address

    yield start
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join(60)
        assert not thread.is_alive()


def type_pair(browser: Browser, prompt: str, one: str, other: str) -> None:
    for name, text in (("prompt", prompt), ("chosen", one), ("rejected", other)):
        browser.run(f"document.querySelector('#typed [name={name}]').value = {json.dumps(text)}")
    browser.run("document.querySelector('#typed button').click()")
    browser.wait("!document.querySelector('#typed button').disabled")


def test_a_typed_pair_is_scored_by_both_models_at_once(
    browser: Browser, served: Callable[..., str], models: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    bad = "</script><img src=x onerror=\"document.title='broken'\">"
    url = served("--model", models["reward"], "--against", models["dpo"])
    browser.visit(url)
    assert browser.run("document.getElementById('view').hidden")
    type_pair(browser, f"Why? {bad}", f"Because {bad} \u202e", "No idea.")
    assert browser.run("document.getElementById('id').textContent") == "typed 1"
    assert browser.run("document.querySelectorAll('#cut .curve').length") == 4
    text = browser.run("document.getElementById('chosen').textContent")
    assert text.startswith(f"Because {bad} U+202E")
    assert browser.run("document.querySelectorAll('img').length") == 0 and "broken" not in browser.run("document.title")
    # The same numbers as the static page's.
    first = reading.load(pairs).preferences[0]
    assert len(first.prompt) == 1
    flags = ["--model", models["reward"], "--allow-leakage", "--output", tmp_path / "run"]
    assert headwater("lens", pairs, *flags) == 0
    expected = next(one for one in shown(tmp_path / "run")["entries"] if one["id"] == first.id)
    type_pair(browser, first.prompt[0].content, first.chosen.text, first.rejected.text)
    assert browser.run("document.getElementById('place').textContent") == "2 of 2"
    cells = browser.run("[...document.querySelectorAll('#scores td:last-child')].map(one => one.textContent)")
    found = [float(text.replace("−", "-")) for text in cells]
    assert found == pytest.approx([*(expected[s]["scores"][0][-1] for s in SIDES), expected["margins"][0]], abs=0.006)
    assert browser.problems == [] and set(browser.requests) == {url, url + "pair"}
    type_pair(browser, "Why?", "word " * 4000, "No.")
    assert "has more than 2048 tokens" in browser.run("document.getElementById('said').textContent")
    assert browser.run("document.querySelectorAll('#list li').length") == 2


def test_what_a_model_cannot_do_is_said_before_anybody_types(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(pairs: object) -> TokenRewards:
        raise ModelError("it", "is an encoder")

    load = tokenwise.load
    monkeypatch.setattr(tokenwise, "load", lambda *given: dataclasses.replace(load(*given), score=refuse))
    assert headwater("lens", "--serve", "--model", models["reward"]) == 4
    told = capsys.readouterr()
    assert "is an encoder" in told.err and "http" not in told.out


def test_a_live_page_holds_the_pairs_of_a_file_too(
    browser: Browser, served: Callable[..., str], models: dict[str, Path], pairs: Path
) -> None:
    browser.visit(served(pairs, "--model", models["reward"], "--pairs", 4))
    type_pair(browser, "Why?", "Because.", "No.")
    listed = browser.run("[...document.querySelectorAll('#list .id')].map(one => one.textContent)")
    assert len(listed) == 5 and listed[-1] == "typed 1"
    assert browser.problems == []
