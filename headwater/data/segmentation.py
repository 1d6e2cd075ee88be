"""Boundaries of characters, words and sentences, for texts in any script.

A character is a grapheme cluster: a letter with its accents, a flag, or a family of joined emoji. Words are runs
between white space, and single ideographs or kana where no space separates them. Sentences end at terminal punctuation
(with closing quotes) before white space, at full-width terminal punctuation, and at line ends; `e.g. this` therefore
counts as two.
"""

from __future__ import annotations

from typing import Literal

import regex

Unit = Literal["grapheme", "word", "sentence"]

_PATTERNS = {
    "grapheme": regex.compile(r"\X"),
    "word": regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]\p{M}*|[^\s\p{Han}\p{Hiragana}\p{Katakana}]+"),
    "sentence": regex.compile(
        r"""(?:[^\n.!?…。！？]|[.!?…]++(?!["'”’»)\]]*(?:\s|$)))*"""
        r"""(?:[.!?…]+["'”’»)\]]*(?=\s|$)|[。！？]+["”’」』）]*|\n+|$)"""
    ),
}


def ends(text: str, unit: Unit) -> list[int]:
    """Return the character offset at which each unit of `text` ends, in order; the last one ends where the text does.

    White space after the last word belongs to it, so that no offset lies beyond what a cut can keep.
    """
    found = [match.end() for match in _PATTERNS[unit].finditer(text) if match.end() > match.start()]
    if unit == "sentence":
        found = _with_words(found, text)
    return [*found[:-1], len(text)] if found else []


def is_grapheme_end(text: str, offset: int) -> bool:
    """Return whether a grapheme cluster of `text` ends at a character offset, as one does at 0 and at the end."""
    if offset in (0, len(text)):
        return True
    if text[offset - 1].isascii() and text[offset].isascii():
        return text[offset - 1 : offset + 1] != "\r\n"
    # A cluster begins at an ASCII character, so the text before the last one need not be examined.
    begin = next((place for place in range(offset - 1, 0, -1) if text[place].isascii() and text[place] != "\n"), 0)
    found = (match.end() for match in _PATTERNS["grapheme"].finditer(text, begin))
    return next(end for end in found if end >= offset) == offset


def _with_words(sentence_ends: list[int], text: str) -> list[int]:
    """Leave out sentences of white space only, such as a line break after a full stop."""
    starts = [0, *sentence_ends]
    return [end for start, end in zip(starts, sentence_ends, strict=False) if text[start:end].strip()]
