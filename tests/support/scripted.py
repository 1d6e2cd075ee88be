"""A chat server on this machine that follows a script."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
Script = Callable[[dict[str, Any]], Reply]


class Server(http.server.ThreadingHTTPServer):
    """Answers as its script says, and keeps what it was asked."""

    script: Script
    asked: list[dict[str, Any]]
    headers: list[dict[str, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        status, headers, data = self.server.script(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def scripted_server() -> Iterator[Server]:
    """Yield a server that runs as long as the block; its `script` says what it answers."""
    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.headers = [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"
