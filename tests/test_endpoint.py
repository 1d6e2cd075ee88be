"""The client of a chat server, against a server on this machine that follows a script."""

from __future__ import annotations

import email.utils
import json
import time

import pytest

from headwater.errors import NetworkError, UsageError
from headwater.network import endpoint
from headwater.network.endpoint import Endpoint
from tests.support.scripted import Reply, Script, Server, url


def ok(value: object = "fine") -> Reply:
    return 200, {}, json.dumps({"value": value}).encode()


def in_turn(*replies: Reply) -> Script:
    left = iter(replies)
    return lambda body: next(left)


def test_an_answer_comes_back_and_the_key_goes_along(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, "secret-key")
    server.script = lambda body: ok(body["x"])
    assert Endpoint(url(server) + "/").post("/chat/completions", {"x": "é"}) == {"value": "é"}
    assert server.headers[0]["Authorization"] == "Bearer secret-key"
    monkeypatch.delenv(endpoint.KEY)
    Endpoint(url(server)).post("/chat/completions", {"x": 1})
    assert "Authorization" not in server.headers[1]


def test_load_is_waited_out_as_long_as_the_server_says(server: Server) -> None:
    waits: list[float] = []
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.script = in_turn(
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": date}, b""),
        (500, {}, b"oops"),
        (200, {}, b"not json"),
        (200, {"Content-Length": "1000"}, b"{"),  # cut off
        ok(),
    )
    assert Endpoint(url(server), timeout=2, sleep=waits.append).post("/x", {}) == {"value": "fine"}
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert [low <= wait <= 2 * low for wait, low in zip(waits[2:], (2, 4, 8), strict=True)] == [True] * 3
    assert len(server.asked) == 6


def test_a_wait_without_end_is_not_believed(server: Server) -> None:
    waits: list[float] = []
    server.script = in_turn((429, {"Retry-After": "999999"}, b""), (429, {"Retry-After": "soon"}, b""), ok())
    Endpoint(url(server), sleep=waits.append).post("/x", {})
    assert waits[0] == 10 * endpoint.LONGEST_WAIT
    assert waits[1] <= 2


@pytest.mark.parametrize(("status", "hint"), [(401, "set OPENAI_API_KEY"), (402, "check"), (404, "the model's name")])
def test_a_refusal_is_not_asked_again(server: Server, status: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, "secret-key")
    server.script = lambda body: (status, {}, b'{"error": "bad key secret-key"}')
    with pytest.raises(NetworkError, match=hint) as caught:
        Endpoint(url(server), sleep=lambda wait: pytest.fail("waited")).post("/x", {})
    assert len(server.asked) == 1
    assert "secret-key" not in str(caught.value) and "bad key ***" in str(caught.value)


def test_it_gives_up_after_its_attempts(server: Server) -> None:
    server.script = lambda body: (503, {}, b"busy")
    with pytest.raises(NetworkError, match="HTTP 503: busy, after 3 attempts"):
        Endpoint(url(server), attempts=3, sleep=lambda wait: None).post("/x", {})
    assert len(server.asked) == 3


def test_nobody_listens() -> None:
    with pytest.raises(NetworkError, match="after 2 attempts"):
        Endpoint("http://127.0.0.1:9/v1", attempts=2, sleep=lambda wait: None).post("/x", {})


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="is no address"):
        Endpoint("file:///etc/passwd")


@pytest.mark.parametrize("address", ["https://me:secret-key@host/v1", "https://host/v1?key=secret-key"])
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match="a key is read from OPENAI_API_KEY") as caught:
        Endpoint(address)
    assert "secret-key" not in str(caught.value)


def test_a_server_that_moved_does_not_take_the_key_along(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, "secret-key")
    server.script = lambda body: (302, {"Location": url(server) + "/elsewhere"}, b"")
    with pytest.raises(NetworkError, match="HTTP 302"):
        Endpoint(url(server)).post("/x", {})
    assert len(server.asked) == 1


def test_a_part_of_a_second_is_waited(server: Server) -> None:
    waits: list[float] = []
    server.script = in_turn((429, {"Retry-After": "0.25"}, b""), ok())
    Endpoint(url(server), sleep=waits.append).post("/x", {})
    assert waits == [0.25]
