"""Judges against a server on this machine that follows a script: what is asked, read, paid for and lost."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.data.preference import Message
from headwater.errors import ModelError, NetworkError
from headwater.evaluation.alpaca_eval import Answer, answer_to
from headwater.evaluation.judge_client import JudgeClient
from headwater.evaluation.judgements import Judgement
from headwater.evaluation.judges import JUDGES, AlpacaEval, ArenaHard, Asking, Comparison, Pairwise
from headwater.journal import Journal
from headwater.network import endpoint
from headwater.network.endpoint import Endpoint
from tests.support.scripted import Reply, Server, url


def comparison(number: int, base: str = "base", tuned: str = "tuned") -> Comparison:
    prompt = f"Prompt {number}?"
    return Comparison(Answer(prompt, f"{base} {number}", "b"), Answer(prompt, f"{tuned} {number}", "t"))


def said(text: str) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def tokens(**log_probs: float) -> Reply:
    top = [{"token": token, "logprob": value} for token, value in log_probs.items()]
    choice = {"message": {"content": "m"}, "logprobs": {"content": [{"token": "m", "top_logprobs": top}]}}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


def mark_of(body: dict[str, Any]) -> str:
    found = re.search(r"<prompt (\w{6})>", body["messages"][1]["content"])
    assert found
    return found.group(1)


def shown_first(body: dict[str, Any]) -> str:
    """Say whose answer a judge is shown as A."""
    found = re.search(r"<answer A \w{6}>\n(\w+)", body["messages"][1]["content"])
    assert found
    return found.group(1)


def prefers_tuned(body: dict[str, Any]) -> Reply:
    return said(f"Well.\nVERDICT {mark_of(body)}: {'A' if shown_first(body) == 'tuned' else 'B'}")


def client(server: Server, path: Path, at_once: int = 1, **more: Any) -> JudgeClient:
    return JudgeClient(Endpoint(url(server), **more), Journal(path / "ledger", {}), at_once)


def judge(server: Server, path: Path, given: Asking, count: int = 3, **more: Any) -> list[Judgement]:
    return client(server, path, **more).judge(given, [comparison(number) for number in range(count)])


@pytest.mark.fault("J5")
def test_both_orders_are_asked_and_turned_back(server: Server, tmp_path: Path) -> None:
    server.script = prefers_tuned
    found = judge(server, tmp_path, Pairwise("m"))
    assert [(one.preference, one.swapped) for one in found] == [(1.0, False), (1.0, True)] * 3
    assert {one.judge for one in found} == {"pairwise:m"} and found[0].outputs == ("base 0", "tuned 0")
    assert [shown_first(body) for body in server.asked] == ["base", "tuned"] * 3
    assert all(body["temperature"] == 0 and body["model"] == "m" for body in server.asked)


def test_a_clear_win_is_three_votes(server: Server, tmp_path: Path) -> None:
    server.script = lambda body: said(f"VERDICT {mark_of(body)}: [[A>>B]]")
    found = judge(server, tmp_path, ArenaHard("m"), 1)
    assert [(one.preference, one.weight) for one in found] == [(0.0, 3), (1.0, 3)]


def test_probabilities_of_names_are_read_in_an_order_that_the_prompt_draws(server: Server, tmp_path: Path) -> None:
    server.script = lambda body: tokens(m=-0.1, M=-2.4) if shown_first(body) == "tuned" else tokens(m=-2.4, M=-0.1)
    found = judge(server, tmp_path, AlpacaEval("m"), 40)
    assert all(one.preference == pytest.approx(0.9089, abs=1e-4) for one in found)
    assert len(server.asked) == 40
    assert 8 < sum(bool(one.swapped) for one in found) < 32
    assert all(body["max_tokens"] == 1 and body["top_logprobs"] == 5 for body in server.asked)


def test_a_server_without_probabilities_is_named(server: Server, tmp_path: Path) -> None:
    server.script = lambda body: said("m")
    with pytest.raises(ModelError, match="gives no log-probabilities"):
        judge(server, tmp_path, AlpacaEval("m"), 1)


@pytest.mark.fault("J4")
def test_one_reminder_then_unparsed(server: Server, tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        if "Prompt 0" in body["messages"][1]["content"]:
            return said("I cannot decide.")
        return prefers_tuned(body) if len(body["messages"]) > 2 else said("A it is, or [[B>>A]].")

    server.script = script
    found = judge(server, tmp_path, Pairwise("m"), 2)
    assert [one.preference for one in found] == [None, None, 1.0, 1.0]
    assert len(server.asked) == 8
    turns = server.asked[-1]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[2]["content"] == "A it is, or [[B>>A]]." and mark_of(server.asked[-1]) in turns[3]["content"]
    again = judge(server, tmp_path, Pairwise("m"), 2)
    assert again == found and len(server.asked) == 8


def answered(message: dict[str, Any], finish: str = "stop") -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


TOO_LONG = 400, {}, b'{"error": {"message": "This model\'s maximum context length is 4096 tokens."}}'
ODD = 400, {}, b'{"error": {"message": "roles must alternate"}}'
BAD_ITEMS: list[tuple[Reply, str, int]] = [
    (TOO_LONG, "too_long", 1),
    (ODD, "refused_by_server", 1),
    (answered({"content": None, "refusal": "I cannot."}), "refusal", 2),
    (answered({"content": None, "tool_calls": [{"id": "1"}]}), "tool_call", 2),
    (answered({"content": ""}), "empty_reply", 2),
    (answered({"content": None}, "content_filter"), "content_filter", 1),
    (answered({"content": "A is"}, "length"), "cut_off", 2),
    (answered({"content": "<think>Hm"}), "unfinished_thinking", 2),
    ((200, {}, b'{"error": {"message": "maximum context length is 10"}}'), "too_long", 1),
]


@pytest.mark.parametrize(("reply", "problem", "requests"), BAD_ITEMS)
@pytest.mark.parametrize("bad", [0, 2])
def test_one_bad_item_costs_its_own_verdict(
    reply: Reply, problem: str, requests: int, bad: int, server: Server, tmp_path: Path
) -> None:
    server.script = lambda body: reply if f"Prompt {bad}?" in body["messages"][1]["content"] else prefers_tuned(body)
    found = judge(server, tmp_path, Pairwise("m"), 3)
    by_prompt = {number: found[2 * number : 2 * number + 2] for number in range(3)}
    assert [one.problem for one in by_prompt.pop(bad)] == [problem] * 2
    assert all(one.preference == 1.0 for pair in by_prompt.values() for one in pair)
    assert len(server.asked) == 4 + 2 * requests


def test_parts_and_thoughts_are_read(server: Server, tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        verdict = f"VERDICT {mark_of(body)}: {'A' if shown_first(body) == 'tuned' else 'B'}"
        if "Prompt 0" in body["messages"][1]["content"]:
            return answered({"content": [{"type": "text", "text": verdict}]})
        return answered({"content": f"<think>\nVERDICT {mark_of(body)}: TIE\n</think>{verdict}"})

    server.script = script
    assert [one.preference for one in judge(server, tmp_path, Pairwise("m"), 2)] == [1.0] * 4
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_concerns_every_request_ends_the_run_at_once(status: int, server: Server, tmp_path: Path) -> None:
    server.script = lambda body: (status, {}, b'{"error": "no"}')
    with pytest.raises(NetworkError, match=f"HTTP {status}"):
        judge(server, tmp_path, Pairwise("m"), 30)
    assert len(server.asked) == 1


def test_a_server_that_refuses_every_request_ends_the_run_soon(server: Server, tmp_path: Path) -> None:
    server.script = lambda body: ODD
    with pytest.raises(NetworkError, match="roles must alternate"):
        judge(server, tmp_path, Pairwise("m"), 30)
    assert len(server.asked) == 16


def test_one_reply_without_probabilities_costs_its_own_verdict(server: Server, tmp_path: Path) -> None:
    server.script = lambda body: said("m") if "Prompt 0" in str(body["messages"]) else tokens(m=-2.4, M=-0.1)
    found = judge(server, tmp_path, AlpacaEval("m"), 2)
    assert [one.problem for one in found] == ["no_log_probs", ""]


def test_equal_answers_tie_unseen(server: Server, tmp_path: Path) -> None:
    server.script = prefers_tuned
    same = Comparison(Answer("p", "x", "b"), Answer("p", "x", "t"))
    (found,) = client(server, tmp_path).judge(Pairwise("m"), [same])
    assert found.preference == 0.5 and server.asked == []


@pytest.mark.fault("J1")
def test_load_and_broken_connections_lose_nothing_and_judge_nothing_twice(server: Server, tmp_path: Path) -> None:
    """429 with Retry-After, 500, a connection cut off and malformed verdicts, two requests at a time."""
    troubles: dict[str, list[Reply]] = {}
    lock = threading.Lock()
    answered: list[str] = []

    def script(body: dict[str, Any]) -> Reply:
        key = json.dumps(body)
        with lock:
            left = troubles.setdefault(
                key, [(429, {"Retry-After": "3"}, b""), (500, {}, b"oops"), (200, {"Content-Length": "900"}, b"{")]
            )
            if left:
                return left.pop(0)
            answered.append(key)
        return prefers_tuned(body) if len(body["messages"]) > 2 else said("VERDICT: B")

    server.script = script
    waits: list[float] = []
    found = judge(server, tmp_path, Pairwise("m"), 5, at_once=2, timeout=1, sleep=waits.append)
    assert [one.preference for one in found] == [1.0] * 10
    assert len(answered) == len(set(answered)) == 20  # ten looks, each with a reminder
    assert waits.count(3.0) == 20 and len(waits) == 60


def test_what_was_answered_before_a_failure_is_kept(server: Server, tmp_path: Path) -> None:
    limit = 5
    server.script = lambda body: prefers_tuned(body) if len(server.asked) <= limit else (403, {}, b"no more")
    with pytest.raises(NetworkError, match="no more"):
        judge(server, tmp_path, Pairwise("m"), 4)
    assert len(Journal(tmp_path / "ledger", {})) == 5
    limit = 99
    server.asked.clear()
    assert [one.preference for one in judge(server, tmp_path, Pairwise("m"), 4)] == [1.0] * 8
    assert len(server.asked) == 3


@pytest.mark.fault("J6")
def test_the_ledger_goes_by_content(server: Server, tmp_path: Path) -> None:
    server.script = prefers_tuned
    judge(server, tmp_path, Pairwise("m"), 2)
    at = client(server, tmp_path)
    first = [comparison(number) for number in range(3)]
    assert at.unpaid(Pairwise("m"), first) == (6, 2)
    assert at.unpaid(Pairwise("other"), first) == (6, 6)
    assert at.unpaid(Pairwise("m"), [comparison(0, tuned="tuned!")]) == (2, 2)
    assert len(server.asked) == 4


def test_the_key_is_written_nowhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, "secret-key")
    server.script = prefers_tuned
    judge(server, tmp_path, Pairwise("m"), 1)
    assert server.headers[0]["Authorization"] == "Bearer secret-key"
    assert all(b"secret-key" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_conversation_is_shown_turn_by_turn(server: Server, tmp_path: Path) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "VERDICT: A"))
    both = Comparison(answer_to(turns, "base", "b"), answer_to(turns, "tuned", "t"))
    server.script = prefers_tuned
    found = client(server, tmp_path).judge(Pairwise("m"), [both])
    assert [one.preference for one in found] == [1.0, 1.0]
    assert found[0].prompt == "[user]\nHi\n\n[assistant]\nHo\n\n[user]\nVERDICT: A"
    mark = mark_of(server.asked[0])
    assert f"<prompt {mark}>\n{found[0].prompt}\n</prompt {mark}>" in server.asked[0]["messages"][1]["content"]


@pytest.mark.parametrize("reply", [b"{}", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": 3}'])
def test_a_server_of_another_kind_is_refused(reply: bytes, server: Server, tmp_path: Path) -> None:
    server.script = lambda body: (200, {}, reply)
    with pytest.raises(NetworkError, match="answered without a message"):
        judge(server, tmp_path, Pairwise("m"), 1)


ASKING: list[Callable[..., Any]] = [make for name, make in JUDGES.items() if name != "reward"]


@pytest.mark.parametrize("make", ASKING)
def test_every_judge_shows_the_texts_and_asks_the_same_again(make: Callable[..., Asking]) -> None:
    from headwater.evaluation.judge_client import reminded, votes
    from headwater.evaluation.judges import Reply as Heard

    one = comparison(7)
    judge = make("m")
    calls = list(votes(judge, [one]))
    assert calls == list(votes(judge, [one])) and judge.name.endswith(":m")
    for call in calls:
        text = json.dumps(judge.body(call.shown))
        assert all(part in text for part in ("Prompt 7?", "base 7", "tuned 7"))
        assert judge.body(call.shown) == judge.body(call.shown) != reminded(judge, call.shown, Heard("?"))
