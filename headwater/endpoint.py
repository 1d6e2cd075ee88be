"""Ask an OpenAI-compatible server (vLLM, SGLang, llama.cpp, …): patient with load, not with refusals.

Only the standard library: one POST a request, tried again where that can help. The key comes from the environment
(`OPENAI_API_KEY`), goes to no other address, and appears in no message.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headwater.errors import HeadwaterError, NetworkError, UsageError, first_line

Item = TypeVar("Item")
Answer = TypeVar("Answer")

KEY = "OPENAI_API_KEY"
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds; a server that names a longer wait in Retry-After is believed up to ten times the longest."""


@dataclass(frozen=True)
class Endpoint:
    """A server under its base address, such as `http://localhost:8000/v1`."""

    url: str
    attempts: int = 8
    timeout: float = 600.0
    """Seconds a request may take."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        """Refuse an address that is none. Errors: `UsageError`."""
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint {self.url}", "is no address", "such as http://localhost:8000/v1")
        parts = urllib.parse.urlsplit(self.url)
        if "@" in parts.netloc or parts.query:  # an address is written into every run
            raise UsageError("--endpoint", "holds a password or a query", f"leave it out; a key is read from {KEY}")

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send `body` to `path` and return the answer.

        Load (429, 5xx), time-outs and broken connections are waited out, as long as `Retry-After` says or twice as
        long each time. Errors: `NetworkError` for what will not pass, or has not after all attempts.
        """
        problem = ""
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                with error:
                    problem = f"HTTP {error.code}: {_said(error)}"
                if error.code not in PASSING:
                    hint = f"set {KEY}" if error.code in (401, 403) else "check the address and the model's name"
                    raise NetworkError(f"{self.url}{path}", problem, hint) from None
                wait = _asked_wait(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:  # no connection, cut off, not JSON
                problem, wait = f"{type(error).__name__}: {first_line(error)}", None
            if attempt < self.attempts:
                self.sleep(_backoff(attempt) if wait is None else wait)
        raise NetworkError(
            f"{self.url}{path}", f"{problem}, after {self.attempts} attempts", "repeat the command later"
        )

    def _once(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(KEY)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, data, headers)
        with _OPENER.open(request, timeout=self.timeout) as answer:
            found = json.load(answer)
        if not isinstance(found, dict):
            raise ValueError("the answer is no JSON object")
        return found


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would take the key to another address."""

    def redirect_request(self, *moved: Any) -> None:
        """Make no second request, so that the redirection is an error."""


_OPENER = urllib.request.build_opener(_Unmoved)


def in_parallel(ask: Callable[[Item], Answer], items: Iterable[Item], at_once: int) -> Iterator[tuple[Item, Answer]]:
    """Yield every item with its answer as they come, `at_once` requests under way.

    Errors: after the first, nothing more is asked, what is under way is still yielded, and then the error is raised.
    """
    left = iter(items)
    under_way: dict[Future[Answer], Item] = {}
    failed: HeadwaterError | None = None
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            while failed is None and len(under_way) < at_once:
                try:
                    item = next(left)
                except StopIteration:
                    break
                under_way[pool.submit(ask, item)] = item
            if not under_way:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                item = under_way.pop(future)
                try:
                    answer = future.result()
                except HeadwaterError as error:
                    failed = failed or error
                    continue
                yield item, answer
    if failed:
        raise failed


def _said(error: urllib.error.HTTPError) -> str:
    """Return what a server says of an error, in one line and without the key."""
    text = " ".join(error.read(2000).decode("utf-8", "replace").split())[:200] or str(error.reason)
    key = os.environ.get(KEY)
    return text.replace(key, "…") if key else text


def _asked_wait(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number, or a date); None where it asks nothing."""
    if not header:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        seconds = float(header)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 10 * LONGEST_WAIT)


def _backoff(attempt: int) -> float:
    """Return a wait that doubles with every attempt, with jitter so that many requests do not come back together."""
    longest: float = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
