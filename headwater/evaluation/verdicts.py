"""Verdicts of LLM judges, parsed strictly, so that text in an answer cannot count as a verdict.

A verdict is a line of its own with a mark that is a hash of the texts, which no answer can contain. A reply without
such a line, or with two that differ, has no verdict. Reasoning before the answer is not parsed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

import xxhash

from headwater.data.layouts.verdicts import LABELS
from headwater.network.replies import after_thoughts


class Verdict(NamedTuple):
    """Preference for the answer shown second (B), 0 to 1, and the number of votes."""

    of_b: float
    weight: int = 1


class Shown(NamedTuple):
    """The texts that a judge is shown."""

    prompt: str
    a: str
    b: str

    @property
    def mark(self) -> str:
        """Return the mark that a verdict on these answers has to contain: deterministic, and in none of the texts."""
        digest = xxhash.xxh3_64_hexdigest("\0".join(self).encode("utf-8", "surrogatepass"))
        while any(digest[:6] in _plain(text) for text in self):
            digest = xxhash.xxh3_64_hexdigest(digest.encode())
        return digest[:6]


LETTERS = {"A": Verdict(0.0), "B": Verdict(1.0), "TIE": Verdict(0.5)}
FIVE = {f"[[{label}]]": Verdict(*LABELS[label]) for label in ("A>>B", "A>B", "A=B", "B>A", "B>>A")}


def line(mark: str, label: str) -> str:
    """Return the line that a judge has to end its reply with."""
    return f"VERDICT {mark}: {label}"


def read(reply: str, mark: str, labels: Mapping[str, Verdict]) -> Verdict | None:
    """Return the verdict of a reply; None where it has none, or several that differ."""
    found = _found(reply, mark, labels)
    return found.pop() if len(found) == 1 else None


def problem(reply: str, mark: str, labels: Mapping[str, Verdict]) -> str:
    """Return why a reply has no verdict: `unfinished_thinking`, `several_verdicts` or `unparsed`."""
    if after_thoughts(reply) is None:
        return "unfinished_thinking"
    return "several_verdicts" if len(_found(reply, mark, labels)) > 1 else "unparsed"


def _found(reply: str, mark: str, labels: Mapping[str, Verdict]) -> set[Verdict]:
    wanted = {_bare(line(mark, label)): verdict for label, verdict in labels.items()}
    # A judge may set its verdict in bold, as a heading or with a full stop; it may not say more on that line.
    return {wanted[text] for text in map(_bare, (after_thoughts(reply) or "").splitlines()) if text in wanted}


def _plain(text: str) -> str:
    """Return a text in the form in which verdicts are compared: lower case, full-width letters as ASCII."""
    return unicodedata.normalize("NFKC", text).casefold()


def _bare(text: str) -> str:
    """Return a line without its markup: `## **VERDICT 1a2b3c:** [[A>B]].` is `verdict 1a2b3c: a>b`."""
    plain = re.sub(r"\*\*|__|\[\[|\]\]|`", "", _plain(text))
    plain = re.sub(r"<(\w+)>", r"\1", plain)
    plain = re.sub(r"\s*:\s*", ": ", re.sub(r"\s+", " ", plain))
    return plain.strip(" _.!*\"'“”").lstrip("#>- ").strip(" _.*\"'“”")


def from_log_probs(tokens: Mapping[str, float], a: str, b: str) -> Verdict | None:
    """Return the probability of token `b` among `a` and `b`, from log-probabilities of the likeliest tokens.

    A token that is not among the likeliest has probability 0 (tatsu-lab/alpaca_eval, `logprob_parser`).
    """
    of_a, of_b = (tokens.get(token, -math.inf) for token in (a, b))
    if max(of_a, of_b) == -math.inf:
        return None
    # Relative to the larger one, so that neither underflows.
    top = max(of_a, of_b)
    return Verdict(math.exp(of_b - top) / (math.exp(of_a - top) + math.exp(of_b - top)))
