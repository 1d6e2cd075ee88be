"""Client of an OpenAI-compatible server (vLLM, SGLang, llama.cpp, …), with retries for failures that may pass.

One POST a request, over kept connections. The key comes from the environment (`OPENAI_API_KEY`), is sent to no other
address, is sent unencrypted to this machine only, and appears in no message.
"""

from __future__ import annotations

import email.utils
import functools
import ipaddress
import json
import logging
import os
import random
import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import tenacity

from headwater.errors import HeadwaterError, NetworkError, UsageError, first_line
from headwater.masking import Secret, mask, mask_all
from headwater.network.replies import problem_of_error

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

KEY = "OPENAI_API_KEY"
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Status codes after which the same request may succeed."""
LARGEST = 64_000_000
"""Maximum size of a reply in bytes."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Shortest and longest wait in seconds; a longer wait in Retry-After is honoured up to ten times the longest."""


@dataclass(frozen=True)
class Endpoint:
    """A server at a base address, such as `http://localhost:8000/v1`."""

    url: str
    attempts: int = 8
    timeout: float = 600.0
    """Maximum seconds of a request."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        """Refuse an invalid address, and one that the key may not be sent to. Errors: `UsageError`."""
        try:
            parts = urllib.parse.urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, brackets that do not close
            good = False
        if not good or re.search(r"[\s\x00-\x20]", self.url):
            raise UsageError(f"--endpoint {mask(self.url)}", "is no address", "such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query:  # an address is written into every run
            raise UsageError("--endpoint", "holds a password or a query", f"leave it out; a key is read from {KEY}")
        if _key() and parts.scheme == "http" and not _is_here(str(parts.hostname)):
            fix = f"use https://, a tunnel to localhost (ssh -L), or unset {KEY} for a server that needs none"
            raise UsageError(f"--endpoint {self.url}", f"would take {KEY} to another machine unencrypted", fix)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send `body` to `path` and return the reply, with secrets of the environment masked in it.

        After overload (429, 5xx), time-outs and broken connections the request is repeated, after the time in `Retry-
        After` or twice the last wait. Errors: `NetworkError` for what will not pass, or has not after all attempts;
        `UsageError` for a key that cannot be sent.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=_wait,
            sleep=self.sleep,
            before_sleep=self._log,
            reraise=True,
        )
        try:
            return retrying(self._once, path, body)
        except _PassingError as error:
            problem = f"{error}, after {self.attempts} attempts"
            raise NetworkError(f"{self.url}{path}", problem, "repeat the command later") from None

    def _log(self, state: tenacity.RetryCallState) -> None:
        """Log a failed attempt before the wait for the next."""
        error = state.outcome.exception() if state.outcome else None
        wait = state.upcoming_sleep
        logger.warning(
            "%s: %s; attempt %d of %d in %.1f s", self.url, error, state.attempt_number + 1, self.attempts, wait
        )

    def _once(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one attempt. Errors: `_PassingError` where the same request may succeed, `NetworkError` otherwise."""
        key = _key()
        headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
        address = self.url.rstrip("/") + path
        try:
            status, found, wait = _exchange(address, body, headers, self.timeout)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            # The cause is left out: a library's message about a request may hold its headers.
            raise _PassingError(f"{type(error).__name__}: {mask(first_line(error))}") from None
        problem = "" if 200 <= status < 300 else problem_of_error(status, found[:2000].decode("utf-8", "replace"))
        if status in PASSING and not problem:
            raise _PassingError(f"HTTP {status}: {_said(found, status)}", wait)
        if not 200 <= status < 300:
            hint = f"set {KEY}" if status in (401, 403) else "check the address and the model's name"
            raise RefusedError(status, problem, address, f"HTTP {status}: {_said(found, status)}", hint)
        return _read(found)


class RefusedError(NetworkError):
    """A request that the server refuses, and would refuse again."""

    def __init__(self, status: int, problem: str, *parts: str) -> None:
        """Store the HTTP `status`, and the `problem` of this one request (see `replies`), or ""."""
        super().__init__(*parts)
        self.status, self.problem = status, problem


UNCLEAR = "refused_by_server"
"""Problem of a request that a server refuses for an unknown reason while it answers others."""
MOST_UNCLEAR = 16
"""Number of requests that may be refused for an unknown reason before any is answered."""


class Refusals:
    """Collects the requests of a job that a server refuses one by one while it answers the others."""

    def __init__(self, answered: bool = False) -> None:
        """Store whether the server has `answered` a request of the job before."""
        self.answered = answered
        self.counts: Counter[str] = Counter()
        """Counts by problem."""
        self.said: dict[str, str] = {}
        """First message of the server for each problem."""
        self._unclear: list[RefusedError] = []

    def take(self, error: RefusedError) -> str:
        """Record and return the problem of one request. Errors: `RefusedError` where it concerns every request."""
        problem = error.problem or UNCLEAR
        if not error.problem:
            self._unclear.append(error)
            if error.status not in (400, 422) or (not self.answered and len(self._unclear) >= MOST_UNCLEAR):
                raise error
        self.counts[problem] += 1
        self.said.setdefault(problem, str(error))
        return problem

    def check(self) -> None:
        """Raise the error of a server that has refused every request, each for an unknown reason."""
        if self._unclear and not self.answered:
            raise self._unclear[0]

    def summary(self) -> str:
        """Return how many requests were refused and why, with the server's first message."""
        counts = ", ".join(f"{problem} {count}" for problem, count in self.counts.items())
        return f"{counts}: {next(iter(self.said.values()))}" if self.said else counts


class _PassingError(Exception):
    """A failure after which the same request may succeed; `wait` is the time in seconds that the server asks for."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


@functools.cache
def _client(process: int) -> httpx2.Client:
    """Return the HTTP client of the process, whose connections all requests share.

    Redirections are not followed, since they would send the key to another address. Certificates are the machine's own.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx2.Client(follow_redirects=False, limits=limits)


def _exchange(
    address: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float
) -> tuple[int, bytes, float | None]:
    """Post `body` and return status, content and the requested wait, within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    patience = httpx2.Timeout(timeout, pool=None)
    with _client(os.getpid()).stream(
        "POST", address, json=dict(body), headers=dict(headers), timeout=patience
    ) as reply:
        parts, size = [], 0
        for part in reply.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise ValueError(f"the answer is larger than {LARGEST:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the answer took longer than {timeout:g} s")
        return reply.status_code, b"".join(parts), _asked_wait(reply.headers.get("Retry-After"))


def _read(content: bytes) -> dict[str, Any]:
    """Return the JSON of a reply without secrets.

    Errors: `_PassingError` for a truncated reply or one that is no object.
    """
    try:
        found = mask_all(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise _PassingError(f"the answer is no JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise _PassingError("the answer is no JSON object")
    return found


def _key() -> Secret | None:
    """Return the key from the environment; None where there is none. Errors: `UsageError`, which does not show it."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        return None
    if not re.fullmatch(r"[!-~]+", key):
        raise UsageError(KEY, "holds a space, a line break or another character that no key has", "set the key alone")
    return Secret(key)


def _is_here(host: str) -> bool:
    """Return whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def in_parallel(ask: Callable[[Item], Answer], items: Iterable[Item], at_once: int) -> Iterator[tuple[Item, Answer]]:
    """Yield every item with its answer as they arrive, with `at_once` requests in flight.

    After the first error no more requests are sent; those in flight are still yielded, then the error is raised.
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


def _said(content: bytes, status: int) -> str:
    """Return a server's error message in one line, without secrets."""
    text = mask(" ".join(content[:2000].decode("utf-8", "replace").split()))[:200]
    return text or httpx2.codes.get_reason_phrase(status)


def _asked_wait(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header (a number, or a date); None where it has no value."""
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


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the wait before the next attempt: what the server asks for, or longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _PassingError) else None
    return _backoff(state.attempt_number) if asked is None else asked


def _backoff(attempt: int) -> float:
    """Return a wait that doubles with every attempt, with jitter so that requests do not all come back at once."""
    longest: float = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
