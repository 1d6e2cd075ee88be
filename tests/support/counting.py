"""Count what `headwater inspect` reports of a real file, in plain Python that shares no code with headwater."""

from __future__ import annotations

import collections
import gzip
import itertools
import json
import math
import os.path
import re
import statistics
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex

Turn = tuple[str, str]


class Dropped(Exception):  # noqa: N818 - what became of a row
    """A row that compares nothing, with the reason."""


class Counted(NamedTuple):
    """A row: the turns of its prompt, and its responses as (side, text, score)."""

    prompt: tuple[Turn, ...]
    responses: tuple[tuple[str, str, float | None], ...]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON array or of JSON lines."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    found: list[dict[str, Any]]
    found = json.loads(text) if ".jsonl" not in path.name else [json.loads(line) for line in text.split("\n") if line]
    return found


# --- rows ---------------------------------------------------------------------------------------------------------


def counted(row: dict[str, Any]) -> Counted:
    """Return the prompt and responses of a row of one of the real files."""
    if isinstance(row.get("chosen"), str) and "prompt" not in row:
        return _hh(row)
    if "output_1" in row:
        return _judged(row)
    if "kto_tag" in row or ("label" in row and "messages" in row):
        *asked, (_, answer) = _turns(row["messages"], "role", "content")
        return Counted(tuple(asked), (("desirable" if row["label"] else "undesirable", answer, None),))
    if "conversations" in row:
        asked = _turns(row["conversations"], "from", "value")
        return _pair(tuple(asked), row["chosen"]["value"], row["rejected"]["value"])
    if "outputs" in row:
        scored = zip(row["outputs"], row["pref_vs_reference"], strict=True)
        return Counted((("user", row["instruction"]),), tuple(("responses", text, score) for text, score in scored))
    if "responses" in row:
        scored = ((one["output"], one["pref"]) for one in row["responses"])
        return Counted((("user", row["instruction"]),), tuple(("responses", text, score) for text, score in scored))
    if "output" in row:
        return Counted((("user", row["instruction"]),), (("desirable", row["output"], None),))
    scores = row["metadata"]["score_chosen"], row["metadata"]["score_rejected"]
    return _pair((("user", row["prompt"]),), row["chosen"], row["rejected"], scores)


def _hh(row: dict[str, Any]) -> Counted:
    sides = []
    for side in ("chosen", "rejected"):
        pieces = re.split(r"\n\n(Human|Assistant):", row[side])
        roles = ["user" if name == "Human" else "assistant" for name in pieces[1::2]]
        turns = [(role, text.strip()) for role, text in zip(roles, pieces[2::2], strict=True)]
        sides.append((turns[:-1], turns[-1][1]))
    (asked, chosen), (other, rejected) = sides
    if asked != other:
        raise Dropped("prompts_differ")
    return _pair(tuple(asked), chosen, rejected)


def _judged(row: dict[str, Any]) -> Counted:
    verdict = row["label"] if "label" in row else row["preference"]
    if verdict is None:
        raise Dropped("no_verdict")
    if verdict in (0, 1.5):
        raise Dropped("tie")
    first, second = row["output_1"], row["output_2"]
    asked = row["input"] if "label" in row else row["instruction"]
    return _pair((("user", asked),), *((first, second) if verdict < 1.5 else (second, first)))


def _turns(items: list[dict[str, str]], role: str, text: str) -> list[Turn]:
    names = {"human": "user", "gpt": "assistant"}
    return [(names.get(item[role], item[role]), item[text]) for item in items]


def _pair(
    prompt: tuple[Turn, ...], chosen: str, rejected: str, scores: tuple[float | None, float | None] = (None, None)
) -> Counted:
    if not chosen.strip() or not rejected.strip():
        raise Dropped("empty_response")
    if chosen.split() == rejected.split():
        raise Dropped("identical_responses")
    return Counted(prompt, (("chosen", chosen, scores[0]), ("rejected", rejected, scores[1])))


# --- figures ------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of `headwater inspect --json` that a count can give, by the same names."""
    kept: dict[Any, Counted] = {}
    dropped: collections.Counter[str] = collections.Counter()
    for row in rows:
        try:
            one = counted(row)
        except Dropped as reason:
            dropped[str(reason)] += 1
            continue
        same = (one.prompt, frozenset(text for _, text, _ in one.responses))
        if same in kept:
            dropped["duplicate" if kept[same].responses[0][:2] == one.responses[0][:2] else "flipped_label"] += 1
        else:
            kept[same] = one
    every = list(kept.values())
    found: dict[str, Any] = {
        "account": {"rows_in": len(rows), "kept": len(every), "quarantined": 0, "dropped": dict(dropped)},
        "turns": {str(n): count for n, count in sorted(collections.Counter(map(_user_turns, every)).items())},
        "with_system_turn": sum(any(role == "system" for role, _ in one.prompt) for one in every),
        "hidden_characters": _hidden(every),
        "characters": _characters(every),
        "near_duplicate_prompts": _near_duplicates({one.prompt for one in every}),
        "scripts": _scripts(every),
    }
    if (margins := [margin for one in every if (margin := _margin(one)) is not None]) != []:
        found["score_margin"] = spread(margins)
    if every[0].responses[0][0] == "chosen":
        found |= _of_pairs(every)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return n, mean and percentiles, linear between the values."""
    ordered = sorted(values)

    def percentile(q: float) -> float:
        place = (len(ordered) - 1) * q / 100
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        return low + (high - low) * (place - math.floor(place))

    parts = {f"p{q}": percentile(q) for q in (0, 5, 25, 50, 75, 95, 100)}
    return {"n": len(ordered), "mean": statistics.fmean(ordered), **parts}


def _user_turns(one: Counted) -> int:
    return sum(role == "user" for role, _ in one.prompt)


def _texts(one: Counted) -> list[str]:
    return [*(text for _, text in one.prompt), *(text for _, text, _ in one.responses)]


def _hidden(every: Sequence[Counted]) -> dict[str, int]:
    categories = {"Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs"}
    by_row = [
        sum(unicodedata.category(c) in categories and c not in "\n\t\r\u200d" for text in _texts(one) for c in text)
        for one in every
    ]
    return {"rows": sum(map(bool, by_row)), "characters": sum(by_row)}


def _characters(every: Sequence[Counted]) -> dict[str, dict[str, float]]:
    lengths: dict[str, list[int]] = {}
    for one in every:
        for side, text, _ in one.responses:
            lengths.setdefault(side, []).append(len(text))
    return {side: spread(values) for side, values in lengths.items()}


def _margin(one: Counted) -> float | None:
    scores = [score for _, _, score in one.responses if score is not None]
    if one.responses[0][0] == "chosen":
        return scores[0] - scores[1] if len(scores) == 2 else None
    return max(scores) - min(scores) if len(scores) > 1 else None


def _near_duplicates(prompts: set[tuple[Turn, ...]]) -> dict[str, int]:
    """Compare every two prompts that share three words in a row."""
    shingles: list[set[tuple[str, ...]]] = []
    for prompt in prompts:
        words = " ".join(text for _, text in prompt).casefold().split()
        shingles.append({tuple(words[start : start + 3]) for start in range(len(words) - 2)})
    holding: dict[tuple[str, ...], list[int]] = {}
    for place, found in enumerate(shingles):
        for shingle in found if len(found) >= 3 else ():
            holding.setdefault(shingle, []).append(place)
    shared: collections.Counter[tuple[int, int]] = collections.Counter()
    for places in holding.values():
        shared.update((a, b) for number, a in enumerate(places) for b in places[number + 1 :])
    near = set()
    for (a, b), common in shared.items():
        if common / (len(shingles[a]) + len(shingles[b]) - common) >= 0.8:
            near |= {a, b}
    return {"prompts": len(prompts), "having_one": len(near)}


SCRIPTS = ("Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Hebrew", "Devanagari")


def _scripts(every: Sequence[Counted]) -> dict[str, float]:
    """Return shares of letters by Unicode's property, which differs from a name for a few signs such as ª and µ."""
    text = "".join(text for one in every for text in _texts(one))
    letters = len(regex.findall(r"\p{L}", text))
    counts = {script: len(regex.findall(rf"\p{{L}}(?<=\p{{{script}}})", text)) for script in SCRIPTS}
    return {script: count / letters for script, count in counts.items() if count}


def _of_pairs(every: Sequence[Counted]) -> dict[str, Any]:
    pairs = [(one.responses[0][1], one.responses[1][1]) for one in every]
    wins = [1.0 if len(a) > len(b) else 0.5 if len(a) == len(b) else 0.0 for a, b in pairs]
    shared = [len(os.path.commonprefix([a, b])) for a, b in pairs]  # noqa: RUF071 - by characters, as wanted
    conversations = set()
    for one in every:
        place = next(number for number, (role, _) in enumerate(one.prompt) if role == "user")
        conversations.add(tuple((role, " ".join(text.casefold().split())) for role, text in one.prompt[: place + 1]))
    return {
        "longer_wins": {"value": statistics.fmean(wins), "n": len(wins), "clusters": len(conversations)},
        "shared_opening": {"share_of_pairs": sum(map(bool, shared)) / len(shared), "characters": spread(shared)},
        "words": words(pairs),
    }


def words(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int, float]]:
    """Return by word: its count in chosen and in rejected responses, and z (Monroe et al. 2008, prior of 500 words)."""
    sides = [collections.Counter[str](), collections.Counter[str]()]
    for pair in pairs:
        for side, text in zip(sides, pair, strict=True):
            side.update(_words(text.casefold().replace("’", "'")))
    totals = [side.total() for side in sides]
    result = {}
    for word in {*sides[0], *sides[1]}:
        counts = [side[word] for side in sides]
        if sum(counts) < 5:
            continue
        prior = 500 * sum(counts) / sum(totals)
        odds = [math.log((n + prior) / (total + 500 - n - prior)) for n, total in zip(counts, totals, strict=True)]
        variance = sum(1 / (n + prior) for n in counts)
        result[word] = counts[0], counts[1], (odds[0] - odds[1]) / math.sqrt(variance)
    return result


_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"


def _words(text: str) -> list[str]:
    """Split at white space, with two characters at a time where a script has none."""
    found = []
    for run in regex.split(rf"(?V1)([{_NO_SPACES}][{_NO_SPACES}\p{{M}}]*)", text)[1::2]:
        characters = regex.findall(r"\X", run)
        found += [a + b for a, b in itertools.pairwise(characters)] or [run]
    for run in regex.split(rf"(?V1)[{_NO_SPACES}][{_NO_SPACES}\p{{M}}]*", text):
        found += [word.strip("'_") for word in regex.findall(r"[\p{L}\p{N}][\w']*", run)]
    return found
