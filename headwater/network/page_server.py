"""Local server of one page, which answers the questions of that page only.

Other users and other pages are excluded: the server listens on 127.0.0.1, its address holds a random token, and a
request must name this host (which a page that rebinds its own name to 127.0.0.1 cannot) and come from the page itself.
Questions and answers are not logged.
"""

from __future__ import annotations

import hmac
import json
import secrets
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headwater import interrupts
from headwater.console import say
from headwater.errors import HeadwaterError, UsageError
from headwater.files import to_json

LIMIT = 1_000_000
"""Maximum size of a question in bytes."""
PATIENCE = 30.0
"""Seconds that a connection may be idle."""
QUESTION = "pair"
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Answer = Callable[[Any], Any]
"""Maps the JSON of a question to that of the answer; raises `HeadwaterError` with advice."""


class RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves `page` at `address`, and `answer` to what is posted to `address` + `pair`."""

    daemon_threads = True

    def __init__(self, page: str, answer: Answer, port: int = 0) -> None:
        """Start listening; port 0 selects a free one. Errors: `UsageError`."""
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UsageError(f"--port {port}", f"cannot be listened on ({error.strerror})", "name another") from error
        self.page, self.answer = page.encode(), answer
        self.token = secrets.token_urlsafe(24)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def service_actions(self) -> None:
        """Stop serving after a signal; called between requests."""
        interrupts.check()

    def run(self) -> None:
        """Serve until Ctrl-C."""
        try:
            self.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")
        finally:
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version, sys_version = "headwater", ""

    def do_GET(self) -> None:
        self._reply(self._page)

    def do_POST(self) -> None:
        self._reply(self._answered)

    def _page(self) -> tuple[str, bytes]:
        self._admit("")
        return "text/html; charset=utf-8", self.server.page

    def _answered(self) -> tuple[str, bytes]:
        self._admit(QUESTION)
        return "application/json", to_json(self.server.answer(self._question())).encode()

    def _reply(self, make: Callable[[], tuple[str, bytes]]) -> None:
        try:
            kind, body = make()
            self._send(HTTPStatus.OK, kind, body)
        except RefusedError as refused:
            self.send_error(refused.status, str(refused))
        except HeadwaterError as error:
            self.send_error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Exception as error:  # the page must hear of it; its message could quote the question
            say("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, f"a bug in headwater: {type(error).__name__}")

    def _admit(self, path: str) -> None:
        """Accept requests for the page and from the page only. Errors: `RefusedError`."""
        if self.headers.get("Host") not in self.server.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this host is not served")
        given = self.path.encode()
        if not hmac.compare_digest(given, f"/{self.server.token}/{path}".encode()):
            raise RefusedError(HTTPStatus.NOT_FOUND, "nothing is here; the address stands in the terminal")
        origin = self.headers.get("Origin", "")
        if origin and origin.removeprefix("http://") not in self.server.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "another page may not ask")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "another page may not ask")

    def _question(self) -> Any:
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "expected a length")
        if int(length) > LIMIT:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected {LIMIT} bytes or fewer")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "expected JSON") from error

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Reply with a message as JSON."""
        self._send(code, "application/json", to_json({"error": message or HTTPStatus(code).phrase}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a request line holds the token."""
