"""`headwater decode` with models apart: on two servers, real ones and scripted ones, and one after the other here."""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headwater import cli
from headwater.config import build
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.sampling import asked
from headwater.decoding.options import DecodingOptions
from headwater.decoding.sequential import SequentialDecoder
from headwater.decoding.strategies import STRATEGIES
from headwater.journal import Journal
from headwater.models import loading
from headwater.results import runs
from tests.commands.test_decode import lines
from tests.support.scripted import Reply, Server, url
from tests.support.serving import save_policy

FIRST, MOST = 5, 12


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, corpus: list[Preference]) -> Path:
    """A policy and a reference of one tokenizer, and prompts."""
    path = tmp_path_factory.mktemp("servers")
    for seed, name in enumerate(("policy", "reference")):
        save_policy(path / name, corpus, "scratch(hidden=32, layers=1, vocab=400)", seed)
    reading.write(path / "pairs.jsonl", corpus[:5])
    return path


def remote(pair: Path, address: str, output: Path, *more: object, code: int = 0) -> list[dict[str, Any]]:
    data = ["--input", pair / "pairs.jsonl", "--output", output, "--max-new-tokens", MOST]
    where = ["--model", pair / "policy", "--reference", pair / "reference", "--endpoint", address]
    given = ["decode", *data, *where, "--tokenizer", pair / "policy", "--strategy", f"length_control(first={FIRST})"]
    assert cli.main([str(each) for each in (*given, *more)]) == code
    return [] if code else lines(output / "decoded.jsonl")


def local(pair: Path, output: Path, *more: object) -> list[dict[str, Any]]:
    data = ["--input", pair / "pairs.jsonl", "--output", output, "--max-new-tokens", MOST]
    both = ["--model", pair / "policy", "--reference", pair / "reference"]
    given = ["decode", *data, *both, "--strategy", f"length_control(first={FIRST})"]
    assert cli.main([str(each) for each in (*given, *more)]) == 0
    return lines(output / "decoded.jsonl")


# --- servers -------------------------------------------------------------------------------------------------------


def test_a_real_server_says_the_first_tokens_and_another_the_rest(chat_server: str, pair: Path, tmp_path: Path) -> None:
    rows = remote(pair, chat_server, tmp_path / "remote", "--temperature", 0)
    expected = local(pair, tmp_path / "local", "--temperature", 0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(pair / "policy")
    exact = 0
    for row, own in zip(rows, expected, strict=True):
        assert (row["id"], row["response_tokens"]) == (own["id"], MOST)
        assert row["token_policy_share"] == [1.0] * FIRST + [0.0] * (MOST - FIRST)
        assert not {"kl", "kl_policy", "log_ratio", "tokens", "token_kl"} & set(row)  # not known, and no zeros
        first = tokenizer.decode(own["tokens"][:FIRST])
        assert row["response"].startswith(first.rstrip("\ufffd"))
        if tokenizer(first, add_special_tokens=False)["input_ids"] == own["tokens"][:FIRST]:
            assert row["response"] == own["response"]
            exact += 1
    assert exact, "no seam that is read as it was said: nothing was compared"
    metrics = runs.load(tmp_path / "remote").metrics
    assert metrics["policy_share"]["value"] == pytest.approx(FIRST / MOST) and "kl" not in metrics
    assert not (tmp_path / "remote.ledger").exists()
    assert cli.main(["report", str(tmp_path / "remote"), "--output", str(tmp_path / "page.html")]) == 0


class Models:
    """What a server with token ids would say: greedy, by the models themselves."""

    def __init__(self, pair: Path) -> None:
        names = [str(pair / name) for name in ("policy", "reference")]
        self._models = {name: loading.load(name, "policy", (), 0).model.eval() for name in names}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(names[0])
        self._alone = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Reply:
        with self._alone, torch.inference_mode():
            ids, new = list(body["prompt"]), []
            while len(new) < body["max_tokens"] and self._tokenizer.eos_token_id not in new:
                new.append(int(self._models[body["model"]](torch.tensor([ids + new])).logits[0, -1].argmax()))
        ended = "stop" if self._tokenizer.eos_token_id in new else "length"
        choice = {"text": self._tokenizer.decode(new), "finish_reason": ended, "token_ids": new}
        return 200, {}, json.dumps({"choices": [choice], "usage": {"completion_tokens": len(new)}}).encode()


def test_token_ids_are_carried_over_exactly(server: Server, pair: Path, tmp_path: Path) -> None:
    server.script = Models(pair)
    rows = remote(pair, url(server), tmp_path / "remote", "--temperature", 0, "--carry", "ids")
    expected = local(pair, tmp_path / "local", "--temperature", 0)
    for name in ("id", "response", "tokens", "complete", "token_policy_share"):
        assert [row[name] for row in rows] == [row[name] for row in expected]
    assert all(body["return_token_ids"] for body in server.asked)
    assert len({body["model"] for body in server.asked}) == 2


def test_prompts_that_a_server_refuses_are_counted(server: Server, pair: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def script(body: dict[str, Any]) -> Reply:
        refused.append(body["prompt"])
        if body["prompt"] == refused[0]:
            return 400, {}, b'{"error": {"message": "maximum context length is 8 tokens"}}'
        text = {"text": None if len(server.asked) % 2 else " so", "finish_reason": "length"}
        return 200, {}, json.dumps({"choices": [text], "usage": {"completion_tokens": body["max_tokens"]}}).encode()

    server.script = script
    found = remote(pair, url(server), tmp_path / "remote", "--concurrency", 1)
    row_counts = runs.load(tmp_path / "remote").row_counts[-1]
    assert row_counts["dropped"]["too_long"] == 1 and row_counts["kept"] == row_counts["rows_in"] - sum(
        row_counts["dropped"].values()
    )
    assert "None" not in json.dumps([row["response"] for row in found])


def test_what_was_paid_for_is_not_asked_again(
    server: Server,
    pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        if refusing and len(server.asked) > 6:
            return 401, {}, b"quota"
        text = {"text": f" {len(server.asked)}" * 3, "finish_reason": "length"}
        return 200, {}, json.dumps({"choices": [text], "usage": {"completion_tokens": body["max_tokens"]}}).encode()

    refusing = True
    server.script = script
    given = (pair, url(server), tmp_path / "remote", "--concurrency", 1)
    remote(*given, code=6)
    assert "HTTP 401" in capsys.readouterr().err and not (tmp_path / "remote").exists()
    assert len(server.asked) == 7
    refusing = False
    server.asked.clear()
    rows = remote(*given)
    assert len(server.asked) == 2  # 4 first parts and 2 rests were there
    assert [row["response"][:3] for row in rows] == [" 1 ", " 2 ", " 3 ", " 4 "]
    prompt = server.asked[0]["prompt"]
    assert prompt.endswith(" 3 3 3") and server.asked[0]["max_tokens"] == MOST - FIRST


def test_half_a_character_at_the_seam_is_dropped_and_counted(
    server: Server,
    pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        text = {"text": "né\ufffd" if body["model"].endswith("policy") else "e.", "finish_reason": "length"}
        return 200, {}, json.dumps({"choices": [text], "usage": {"completion_tokens": body["max_tokens"]}}).encode()

    server.script = script
    rows = remote(pair, url(server), tmp_path / "remote")
    assert {row["response"] for row in rows} == {"née."}
    assert "half a character was dropped where the reference took over, in 4 of 4" in capsys.readouterr().err


def test_a_tokenizer_whose_pieces_lose_their_space_is_refused(
    shared_data: Path,
    server: Server,
    pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.decoding import stories

    path = stories.save(shared_data / "stories260K", tmp_path / "stories")
    remote(pair, url(server), tmp_path / "remote", "--tokenizer", path, code=4)
    assert "with --carry ids" in capsys.readouterr().err and not server.asked


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"text": "a", "finish_reason": "stop"}]}])
def test_a_server_of_another_kind_is_named(
    answer: dict[str, Any],
    server: Server,
    pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.script = lambda body: (200, {}, json.dumps(answer).encode())
    remote(pair, url(server), tmp_path / "remote", code=6)
    assert "expected choices with text" in capsys.readouterr().err


REFUSED = [
    (["--strategy", "kl_threshold(threshold=1)"], "is not for --endpoint"),
    (["--draws", "5"], "needs both models at once"),
    (["--release-policy"], "has no effect with --endpoint"),
    (["--draft", "4"], "has no effect with --endpoint"),
    (["--concurrency", "0"], "expected 1 or more"),
    (["--reference-endpoint", "localhost"], "is no address"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_what_servers_cannot_do_is_refused(
    more: list[str], message: str, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote(pair, "http://localhost:1/v1", tmp_path / "remote", *more, code=2)
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


# --- one after the other -------------------------------------------------------------------------------------------


def test_a_policy_that_is_released_says_the_same(pair: Path, tmp_path: Path) -> None:
    more = ("--n", 2, "--temperature", 0.8, "--top-p", 0.9)
    both, apart = (local(pair, tmp_path / name, *more, *flag) for name, flag in RELEASED.items())
    assert len({row["response"] for row in both}) == 8
    for one, other in zip(both, apart, strict=True):
        assert not {"kl", "kl_policy", "token_kl"} & set(other)
        for name in ("id", "draw", "response", "complete", "tokens", "token_policy_share"):
            assert one[name] == other[name]
        assert other["token_log_ratio"] == pytest.approx(one["token_log_ratio"], abs=1e-5)


RELEASED: dict[str, tuple[str, ...]] = {"both": (), "apart": ("--release-policy",)}


def test_the_policy_is_gone_when_the_reference_speaks(pair: Path, tmp_path: Path) -> None:
    prompts, _ = asked(reading.stream(pair / "pairs.jsonl"))
    journal = Journal(tmp_path / "ledger", {})
    names = str(pair / "policy"), str(pair / "reference")
    relay = SequentialDecoder(*names, prompts, DecodingOptions(max_new_tokens=8), 0, journal)
    there = weakref.ref(relay._policy)
    load, seen = relay._load_reference, []
    relay._load_reference = lambda: (seen.append(there()), load())[1]  # type: ignore[method-assign,func-returns-value]
    found = list(relay.responses(build("length_control(first=3)", STRATEGIES, "strategy"), 0))
    assert seen == [None] and len(found) == len(prompts)
    journal.close()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("policy", "is not for --release-policy"), ("length_control(first=0)", "has no effect with length_control")],
)
def test_a_policy_that_cannot_be_released(
    strategy: str, message: str, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", pair / "policy", "--reference", pair / "reference", "--input", pair / "pairs.jsonl"]
    call = ["decode", *given, "--release-policy", "--strategy", strategy, "--output", tmp_path / "run"]
    assert cli.main([str(each) for each in call]) == 2
    assert message in capsys.readouterr().err
