"""Chromium by its own protocol, over pipes: what a reader does to a page, and what the page asks of the network.

Tests take the fixture `browser` (tests/conftest.py): one headless Chromium a session, skipped where there is none.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --remote-debugging-pipe"
PATIENCE = 60.0
"""Seconds until a silent browser fails the test."""
PROBLEMS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


class Browser:
    """One page of a headless Chromium; `problems` and `requests` are what it has met so far."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        command = f"exec {CHROMIUM} {FLAGS} --user-data-dir={shlex.quote(str(profile))} about:blank"
        self._process = subprocess.Popen(  # it reads from descriptor 3 and writes to 4
            ["bash", "-c", f"{command} 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._calls, self._session = b"", 0, ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the protocol and return its result; events that arrive before it are noted."""
        self._calls += 1
        call = {"id": self._calls, "method": method, "params": parameters}
        message = json.dumps(call | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        while message:
            message = message[os.write(self._to, message) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._calls:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], PATIENCE)[0], "Chromium is silent"
            found = os.read(self._from, 1 << 20)
            assert found, "Chromium has gone"
            self._buffer += found
        line, _, self._buffer = self._buffer.partition(b"\0")
        event: dict[str, Any] = json.loads(line)
        if event.get("method") in PROBLEMS:
            self.problems.append(json.dumps(event["params"]))
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        return event

    def visit(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page in a window of its own size; `problems` and `requests` begin with it."""
        self.window(width, height, dark)
        self.open("about:blank")
        self.problems.clear()
        self.requests.clear()
        self.open(url)
        self.settle()

    def open(self, url: str) -> None:
        """Load a page and wait until it has."""
        self("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, and return its value."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self) -> None:
        """Wait for two frames: what has been asked for has happened and is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        late = time.monotonic() + PATIENCE
        while not (found := self.run(expression)):
            assert time.monotonic() < late, f"never true: {expression}"
            self.settle()
        return found

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        text = {"text": key} if len(key) == 1 else {}
        self("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, held: bool = False) -> None:
        """Send `mousePressed`, `mouseMoved` or `mouseReleased` at a point of the window."""
        button = "none" if kind == "mouseMoved" and not held else "left"
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=int(held), clickCount=1)
        self.settle()

    def window(self, width: int, height: int, dark: bool = False) -> None:
        """Set the window's size (below 500 pixels: a phone) and colours."""
        phone = width < 500
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, whole: bool = False) -> None:
        """Save what the window shows, or the whole page, as PNG."""
        extent: dict[str, Any] = {}
        if whole:
            size = self("Page.getLayoutMetrics")["cssContentSize"]
            extent = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", **extent)["data"]))

    def close(self) -> None:
        """End the browser."""
        self("Browser.close")
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)
