"""Visible marks for characters that a terminal would interpret, or that are invisible."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs")
"""Categories: controls, format characters (bidi overrides, zero width), line separators, private and unassigned ones,
and surrogates (bytes of a file name that are not UTF-8).
"""
_JOINER = "\u200d"
"""Zero-width joiners hold emoji and letters together; they are the only format characters that are kept."""
_PLAIN = re.compile(r"[ -~\n\t]*")


def marked(text: str) -> str:
    """Return a text with control and invisible characters as marks; line breaks and tabs stay."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(one if one in "\n\t" else _mark(one) for one in text)


def visible(text: str) -> str:
    """Return a text in one line, with control and invisible characters (bidi, zero width) as marks."""
    return "".join("⏎" if one == "\n" else _mark(one) for one in text.strip())


def hidden_in(text: str) -> int:
    """Count the control and invisible characters of a text; line breaks and tabs are not counted."""
    return 0 if text.isascii() and _PLAIN.fullmatch(text) else len(_hidden().findall(text))


@functools.cache
def _hidden() -> regex.Pattern[str]:
    import regex  # here, because the command line imports this, and --help answers at once

    return regex.compile(rf"(?V1)[[\p{{Cc}}\p{{Cf}}\p{{Zl}}\p{{Zp}}\p{{Co}}\p{{Cn}}\p{{Cs}}]--[\n\t\r{_JOINER}]]")


def _mark(character: str) -> str:
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character) in _HIDDEN and character != _JOINER:
        return f"<U+{ord(character):04X}>"
    return character
