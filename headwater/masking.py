"""Masking of secrets: a key type that does not print, and texts without the secrets of the environment.

Secrets are recognised by value: the value of every environment variable whose name indicates a secret. Messages, logs
and the files that describe a run are also searched for patterns (`sk-…`, `hf_…`, `Bearer …`, passwords in addresses).
Data is not searched for patterns, since a text about keys is ordinary data.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TextIO

MASK = "***"
SHORTEST = 8
"""Minimum length of a masked value: shorter ones would mask ordinary words."""
_NAMES = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(?:_?\d+|_ID|_VALUE)?$",
    re.IGNORECASE,
)
"""Names of environment variables that hold a secret."""
_USERINFO = re.compile(r"(?<=://)[^\s/@:\"']*:?[^\s/@\"']*(?=@[^\s/@]+)")
_LOOKS = (
    (re.compile(r"\bsk-[A-Za-z0-9_-]{12,}"), MASK),
    (re.compile(r"\bhf_[A-Za-z0-9]{12,}"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (_USERINFO, MASK),
    (
        re.compile(r"(?i)([?&](?:api[_-]?key|key|(?:access_|auth_)?token|sig|signature|password)=)[^&\s\"'#]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(x-api-key|api-key|authorization)(\W{1,4})[A-Za-z0-9._~+/=-]{8,}"), rf"\1\2{MASK}"),
)


class Secret(str):
    """A string that prints, formats, pickles and serialises as `***`; `reveal` returns its value."""

    __slots__ = ("_value",)
    _value: str

    def __new__(cls, value: str) -> Secret:
        """Store `value`."""
        secret = super().__new__(cls, MASK)
        secret._value = value
        return secret

    def reveal(self) -> str:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy only the mask."""
        return str, (MASK,)


def mask(text: str) -> str:
    """Return a message or a description of a run with known secrets, and texts that look like one, masked."""
    text = mask_values(text)
    for look, instead in _LOOKS:
        text = look.sub(instead, text)
    return text


def mask_values(text: str) -> str:
    """Return a text with the secrets of the environment masked; other texts that look like one stay."""
    for value in _values():
        if value in text:
            text = text.replace(value, MASK)
    return text


def mask_all(value: Any, how: Callable[[str], str] = mask_values) -> Any:
    """Return JSON (lists, mappings, texts) with every text masked by `how`, names too."""
    if isinstance(value, str):
        return how(value)
    if isinstance(value, dict):
        return {mask_all(key, how): mask_all(item, how) for key, item in value.items()}
    return [mask_all(item, how) for item in value] if isinstance(value, list) else value


def names_secret(variable: str) -> bool:
    """Return whether an environment variable of this name holds a secret."""
    return bool(_NAMES.search(variable))


def _values() -> list[str]:
    """Return the secrets of the environment in every form they may be written in, the longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _NAMES.search(name):
            for part in (value, *value.split()):
                found.update(_forms(part))
        elif "://" in value and "@" in value:  # a proxy with a password
            for part in _USERINFO.findall(value):
                found.update(_forms(part.partition(":")[2]))
    return sorted((form for form in found if len(form) >= SHORTEST), key=lambda form: (-len(form), form))


def _forms(value: str) -> Iterator[str]:
    if len(value.strip()) < SHORTEST:
        return
    for one in {value, value.strip()}:
        raw = one.encode("utf-8", "surrogateescape")
        yield from (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], repr(one)[1:-1])
        yield from (html.escape(one), urllib.parse.quote(raw), urllib.parse.quote(raw, safe=""))
        yield base64.b64encode(raw).decode().rstrip("=")


class _MaskedStream:
    """Standard output or error, without secrets."""

    def __init__(self, stream: TextIO, looks: bool) -> None:
        self._stream, self._mask = stream, mask if looks else mask_values

    def write(self, text: str) -> int:
        self._stream.write(self._mask(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def masked_output() -> Iterator[None]:
    """Mask secrets in everything printed in the block, by any library: messages, warnings, logs, tracebacks."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _MaskedStream(sys.stdout, False), _MaskedStream(sys.stderr, True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
