"""Cache of token ids on disk, by their inputs: texts, tokenizer, template and truncation.

The key is a hash of all of them (and of the format), so a wrong entry cannot be read; a damaged one is recomputed.
Entries are in `$HEADWATER_CACHE` or `~/.cache/headwater`, and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from headwater.data.preference import Example
from headwater.data.reading import RowCounts
from headwater.data.templates import current_template, tool_template
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, Mask, PairTokens
from headwater.data.turns import special_tokens
from headwater.errors import ResourceError
from headwater.files import caches, write_atomically

FORMAT = "6"
PARTS = ("prompt", "chosen", "rejected")
MASKS = PARTS[1:]
"""Parts with a mask, which an entry holds where a row has one."""


class Entry(NamedTuple):
    """Cached values: pairs, with their row counts and notes."""

    pairs: list[PairTokens]
    row_counts_by_stage: dict[str, RowCounts]
    notes: Counter[str]
    kept: float
    """Share of the response tokens that the cut kept."""


def home() -> Path:
    """Return the cache folder."""
    return caches.home()


def folder() -> Path:
    """Return the folder of the entries."""
    return home() / "tokens"


def key(examples: Sequence[Example], encode_options: EncodeOptions, tokenizer: Tokenizer) -> str:
    """Return the hash of everything that token ids depend on, in hexadecimal."""
    digest = hashlib.sha256(FORMAT.encode())
    # The template as it is rendered: with the date that it writes.
    named = repr((tokenizer.special_tokens_map, special_tokens(tokenizer)))
    templates = (current_template(tokenizer), tool_template(tokenizer) or "")
    for part in (tokenizer.backend_tokenizer.to_str(), *templates, named, repr(encode_options)):
        _update(digest, part)
    for example in examples:
        _update(digest, example.key)  # a random span is drawn by it
        for message in example.conversation:
            for text in message.texts:
                _update(digest, text)
        for side, response in zip(example.sides, example.responses, strict=True):
            _update(digest, side)
            for text in response.texts:
                _update(digest, text)
            digest.update(b"1" if response.complete else b"0")
        digest.update(b"\0")
    return digest.hexdigest()


def _update(digest: Any, text: str) -> None:
    """Add a text with its length, so that no two sequences of texts run into one."""
    raw = text.encode("utf-8", "surrogatepass")
    digest.update(len(raw).to_bytes(8, "little"))
    digest.update(raw)


def save(name: str, entry: Entry) -> None:
    """Store an entry atomically; a failure to write is ignored."""
    columns = {part: [getattr(pair, part) for pair in entry.pairs] for part in PARTS}
    arrays = {part: np.concatenate(ids) for part, ids in columns.items()}
    arrays["lengths"] = np.array([[len(ids) for ids in columns[part]] for part in PARTS], dtype=np.int64)
    if any(mask is not None for pair in entry.pairs for mask in pair.masks):
        for part in MASKS:
            arrays[f"{part}_mask"] = np.concatenate([_mask(pair, part) for pair in entry.pairs])
    arrays["rows"] = np.array([pair.row for pair in entry.pairs], dtype=np.int64)
    about = {
        "accounts": json.dumps({stage: vars(row_counts) for stage, row_counts in entry.row_counts_by_stage.items()}),
        "notes": json.dumps(entry.notes),
        "kept": repr(entry.kept),
        "vocabulary": entry.pairs[0].vocabulary,
        "checksum": _checksum(arrays),
    }
    try:
        write_atomically(folder() / f"{name}.safetensors", lambda path: save_file(arrays, path, about))
    except (OSError, ResourceError):
        return


def load(name: str, examples: Sequence[Example]) -> Entry | None:
    """Read an entry back for the same rows; None where there is none, or it is damaged."""
    try:
        with safe_open(folder() / f"{name}.safetensors", "numpy") as file:
            arrays = {part: file.get_tensor(part) for part in file.keys()}  # noqa: SIM118 - no dict
            about = file.metadata()
        if about["checksum"] != _checksum(arrays):
            return None
        row_counts_by_stage = {stage: _row_counts(fields) for stage, fields in json.loads(about["accounts"]).items()}
        return Entry(
            _pairs(arrays, examples, about["vocabulary"]),
            row_counts_by_stage,
            Counter(json.loads(about["notes"])),
            float(about["kept"]),
        )
    except (OSError, SafetensorError, KeyError, ValueError, IndexError):
        return None


def _checksum(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _row_counts(fields: dict[str, Any]) -> RowCounts:
    return RowCounts(**fields | {"dropped": Counter(fields["dropped"])})


def _pairs(arrays: dict[str, Any], examples: Sequence[Example], vocabulary: str) -> list[PairTokens]:
    parts = [
        np.split(arrays[part], np.cumsum(lengths)[:-1]) for part, lengths in zip(PARTS, arrays["lengths"], strict=True)
    ]
    found, masks = [], _masks(arrays)
    for place, (row, prompt, chosen, rejected) in enumerate(zip(arrays["rows"], *parts, strict=True)):
        example = examples[int(row)]
        names = (example.id, example.source, example.conversation_id)
        pair = PairTokens(prompt, chosen, rejected, *names, columns=example.loss_columns)
        found.append(pair._replace(key=example.key, row=int(row), vocabulary=vocabulary, **masks[place]))
    return found


def _mask(pair: PairTokens, part: str) -> Mask:
    mask: Mask | None = getattr(pair, f"{part}_mask")
    return np.ones(len(getattr(pair, part)), dtype=bool) if mask is None else mask


def _masks(arrays: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the masks of every row by field, without those of all tokens."""
    found: list[dict[str, Any]] = [{} for _ in arrays["rows"]]
    for number, part in enumerate(PARTS):
        if f"{part}_mask" in arrays:
            masks = np.split(arrays[f"{part}_mask"], np.cumsum(arrays["lengths"][number])[:-1])
            for row, mask in zip(found, masks, strict=True):
                row |= {} if mask.all() else {f"{part}_mask": mask}
    return found
