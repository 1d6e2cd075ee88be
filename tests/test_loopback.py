"""The server of a page: who is let in, and what is said to the others."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from headwater.errors import DataError, UsageError
from headwater.network.page_server import LIMIT, Server

SECRET = "what somebody typed"


def answer(asked: Any) -> Any:
    if asked == "bad":
        raise DataError("prompt", "is empty", "type a text")
    if asked == "bug":
        raise KeyError(SECRET)
    return {"heard": asked}


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Server("<p>page</p>", answer)) as found:
        yield found


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


def ask(server: Server, method: str, path: str | None = None, body: str | None = None, **headers: str) -> Reply:
    """Send a request as the page would, but for what is given; `None` as a header leaves it out."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    wanted = {"Content-Type": "application/json"} if method == "POST" else {}
    wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
    where = path if path is not None else f"/{server.token}/" + ("pair" if method == "POST" else "")
    connection.request(method, where, body.encode() if body else None, wanted)
    reply = connection.getresponse()
    found = Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode())
    connection.close()
    return found


def test_the_page_and_its_question_are_served(server: Server) -> None:
    page = ask(server, "GET")
    assert (page.status, page.body) == (200, "<p>page</p>")
    assert page.headers["cache-control"] == "no-store" and page.headers["x-frame-options"] == "DENY"
    assert "python" not in page.headers["server"].lower()
    assert json.loads(ask(server, "POST", body='"a 🦊"').body) == {"heard": "a 🦊"}
    host = f"localhost:{server.server_port}"
    assert ask(server, "POST", body="1", Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin").status == 200


def test_only_this_machine_can_connect(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32 and server.token != Server("", answer).token


@pytest.mark.parametrize(
    ("method", "change", "status"),
    [
        ("GET", {"path": "/"}, 404),
        ("GET", {"path": "/guess/"}, 404),
        ("POST", {"path": "/guess/pair", "body": "1"}, 404),
        ("GET", {"path": "/../"}, 404),
        ("GET", {"Host": "evil.example"}, 403),
        ("GET", {"Host": "127.0.0.1"}, 403),
        ("GET", {"Host": "127.0.0.1.evil.example:80"}, 403),
        ("POST", {"body": "1", "Origin": "http://evil.example"}, 403),
        ("POST", {"body": "1", "Origin": "null"}, 403),
        ("POST", {"body": "1", "Sec_Fetch_Site": "cross-site"}, 403),
        ("POST", {"body": "1", "Sec_Fetch_Site": "same-site"}, 403),
        ("POST", {"body": "1", "Content_Type": "text/plain"}, 415),
        ("POST", {"body": "{"}, 400),
        ("POST", {"body": "[" * 100_000}, 400),
        ("POST", {"body": "1", "Content_Length": "-1"}, 411),
        ("POST", {"body": "1", "Content_Length": str(LIMIT + 1)}, 413),
        ("POST", {"body": '"bad"'}, 422),
        ("PUT", {"body": "1"}, 501),
        ("OPTIONS", {}, 501),
    ],
)
def test_what_does_not_come_from_the_page_is_refused(
    server: Server, method: str, change: dict[str, str], status: int
) -> None:
    reply = ask(server, method, **change)
    assert reply.status == status
    assert set(json.loads(reply.body)) == {"error"} and reply.headers["content-type"] == "application/json"
    assert server.token not in reply.body and "access-control-allow-origin" not in reply.headers


def test_what_to_do_reaches_the_page_and_a_bug_is_reported_without_what_was_typed(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(ask(server, "POST", body='"bad"').body) == {"error": "prompt · is empty · type a text"}
    assert json.loads(ask(server, "POST", body='"bug"').body) == {"error": "a bug in headwater: KeyError"}
    ask(server, "GET")
    told = "".join(capfd.readouterr())
    assert "KeyError" in told and "in answer" in told and server.token not in told
    assert told.count(SECRET) == 0


def test_ctrl_c_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("", answer)

    def interrupted(poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve_forever", interrupted)
    server.run()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")


def test_a_port_that_is_taken_is_refused(server: Server) -> None:
    with pytest.raises(UsageError, match="cannot be listened on"):
        Server("", answer, server.server_port)
