"""Characters that a terminal would act on, or that no reader sees, as visible marks."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs")
"""Categories: controls, format characters (bidi overrides, zero width), line separators, private and unassigned ones,
and surrogates (bytes of a file name that are not UTF-8)."""
_JOINER = "\u200d"
"""Zero-width joiners hold emoji and letters together; alone among the format characters they pass."""
_PLAIN = re.compile(r"[ -~\n\t]*")


def marked(text: str) -> str:
    """Return a text with what a terminal would act on or hide shown; line breaks and tabs stay."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(one if one in "\n\t" else _mark(one) for one in text)


def visible(text: str) -> str:
    """Return a text in one line, with what a terminal would act on or hide (controls, bidi, zero width) shown."""
    return "".join("⏎" if one == "\n" else _mark(one) for one in text.strip())


def hidden_in(text: str) -> int:
    """Count the characters of a text that a terminal would act on or hide; line breaks and tabs are none."""
    if _PLAIN.fullmatch(text):
        return 0
    return sum(one not in "\n\t\r" and _mark(one) != one for one in text)


def _mark(character: str) -> str:
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character) in _HIDDEN and character != _JOINER:
        return f"<U+{ord(character):04X}>"
    return character
