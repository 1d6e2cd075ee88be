"""Hidden states behind the frozen layers of a model, computed once and stored on disk.

    ~/.cache/headwater/states/9f3c…/       one model: its frozen weights, its configuration, the precision
        40d1….npy                          states of many segments one after another, [tokens, hidden] float32
        40d1….json                         their keys and lengths, and a checksum; written last

A segment is a prompt or a response (`forward/segments.py`), and its key depends on its tokens alone. Other epochs,
seeds, losses and learning rates, and other data with the same rows, therefore find the states; so does a policy after
a reward model of the same checkpoint. A prompt is stored once for all its responses, and a shorter ratio of a causal
model uses the beginnings of what is stored for a longer one.

Before states are used their checksum is compared, and those of a few rows are computed again; where anything differs
they are computed anew, with a message. Files are mapped into memory instead of read as a whole. Several processes
compute their shares into files of their own. Folders that were not used for `KEPT_DAYS` days are removed when states
are written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from headwater import files
from headwater.console import say
from headwater.data.tokens import PairTokens
from headwater.errors import ResourceError, UsageError
from headwater.files import caches
from headwater.forward.frozen_layers import Split
from headwater.forward.hidden_states import frozen_states
from headwater.forward.packing import PairBatch, RowFormat, tokens_of
from headwater.forward.passes import WINDOW, computed
from headwater.forward.scores import to_device
from headwater.forward.segments import Cutting, response_key
from headwater.models.parts import backbone

States = NDArray[np.float32]

FORMAT = "1"
SHARD = 2**28
"""Bytes of states in a file, about."""
CHECKED = 3
"""Number of pairs whose states are computed again before stored ones are used."""
SAME = {False: 1e-4, True: 5e-2}
"""Largest difference of states that were computed again, as a share of their size: in float32, and in bf16."""
WORTH = 4.0
"""States are computed for whole responses if that costs at most this many times the truncated ones."""
KEPT_DAYS = 30
GIB = 2**30
UNRELATED = frozenset(
    {"_name_or_path", "architectures", "id2label", "label2id", "num_labels", "problem_type", "transformers_version"}
    | {"dtype", "pad_token_id", "use_cache"}
)
"""Entries of a configuration that do not change hidden states; the weights' own types are part of the key."""


class _Place(NamedTuple):
    """Where the states of a segment are."""

    file: str
    start: int
    stop: int


class StateStore:
    """The stored states of a split model, as a `StateSource`."""

    def __init__(
        self, model: Any, split: Split, row_format: RowFormat, cutting: Cutting, max_tokens: int, *, bf16: bool
    ) -> None:
        """Take the model and how its rows are read; nothing is computed yet."""
        self._model, self._split, self._row_format, self._cutting = model, split, row_format, cutting
        self._max_tokens, self._bf16 = max_tokens, bf16
        self._hidden = int(backbone(model).config.get_text_config().hidden_size)
        self.folder = caches.home() / "states" / _key(model, split, cutting, bf16)
        self._places: dict[bytes, _Place] = {}
        self._arrays: dict[str, States] = {}

    def __deepcopy__(self, memo: Any) -> StateStore:
        """Return the store itself: a copy of the model has the same frozen layers."""
        return self

    def read(self, batch: PairBatch) -> torch.Tensor | None:
        """Return the states of a batch, [R, T, hidden] float32, 0 where none are read; None unless all are known."""
        segments = list(self._cutting.of_batch(batch))
        if not all(segment.key in self._places for segment in segments):
            return None
        rows, width = batch["input_ids"].shape
        shape = (rows, 1) if self._cutting.first_only else (rows, width)
        found = np.zeros((shape[0] * shape[1], self._hidden), dtype=np.float32)
        for segment in segments:
            found[segment.places] = self._states(segment.key)
        return torch.from_numpy(found).view(*shape, self._hidden)

    def fill(self, pairs: Sequence[PairTokens], whole: Sequence[PairTokens]) -> None:
        """Compute the states of `pairs` that are not stored; for a causal model those of the `whole` responses.

        Both were made of the same rows: a pair and a whole one with the same `row` belong together. Errors:
        `ResourceError` for a disk that is too small, `UsageError` for a folder that cannot be written.
        """
        if not self._cutting.causal or _cost(whole) > WORTH * _cost(pairs):
            whole = pairs
        began = time.perf_counter()
        try:
            self._open(whole)
            self._check_stored(whole)
            missing = self._missing(whole)
            self._check_disk(missing)
            self._add(missing)
            self._shorten(pairs, whole)
            self._add(self._missing(pairs))
        except OSError as error:
            raise UsageError(str(self.folder), f"cannot be written: {error}", "set HEADWATER_CACHE") from error
        made = f"computed in {time.perf_counter() - began:.0f} s" if missing else "computed before"
        say(f"frozen layers: hidden states of {len(pairs):,} rows in {self.folder}, {made}")

    def _states(self, key: bytes) -> States:
        place = self._places[key]
        return self._arrays[place.file][place.start : place.stop]

    def _missing(self, pairs: Sequence[PairTokens]) -> list[PairTokens]:
        """Return the pairs whose states are not all known: the same ones in every process."""
        places = [[place for place, pair in enumerate(pairs) if not self._has(pair)]]
        if PartialState().num_processes > 1:
            PartialState().wait_for_everyone()  # nobody writes while another one still looks
            broadcast_object_list(places)
        return [pairs[place] for place in places[0]]

    def _has(self, pair: PairTokens) -> bool:
        return all(each.key in self._places for each in self._cutting.of_pair(pair))

    def _shorten(self, pairs: Sequence[PairTokens], whole: Sequence[PairTokens]) -> None:
        """Find the states of the responses of `pairs` at the beginning of those of `whole` ones."""
        by_row = {pair.row: pair for pair in whole}
        for pair in pairs:
            longer = by_row.get(pair.row)
            if longer is None or longer is pair or not np.array_equal(pair.prompt, longer.prompt):
                continue
            for mine, theirs in ((pair.chosen, longer.chosen), (pair.rejected, longer.rejected)):
                if len(mine) and np.array_equal(mine, theirs[: len(mine)]):
                    file, start, _ = self._places[response_key(longer.prompt, theirs)]
                    key = response_key(pair.prompt, mine)
                    self._places.setdefault(key, _Place(file, start, start + len(mine)))

    def _open(self, pairs: Sequence[PairTokens]) -> None:
        """Map the files that hold states of `pairs`; damaged ones are removed."""
        wanted = {each.key for pair in pairs for each in self._cutting.of_pair(pair)}
        for about in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(about.read_text(encoding="utf-8"))
                keys = [bytes.fromhex(key) for key in found["keys"]]
                if about.stem not in self._arrays and not wanted.isdisjoint(keys):
                    self._map(about, found["checksum"], keys, np.cumsum([0, *found["lengths"]]).tolist())

    def _check_stored(self, pairs: Sequence[PairTokens]) -> None:
        """Remove the stored states where those of some of `pairs` differ from what the model computes."""
        problem = self._differs([pair for pair in pairs if self._has(pair)])
        if problem:
            say(f"frozen layers: {self.folder} {problem}; they are made anew")
            for name in self._arrays:
                _remove(self.folder / f"{name}.json")
            self._places, self._arrays = {}, {}

    def _map(self, about: Path, checksum: str, keys: Sequence[bytes], ends: Sequence[int]) -> None:
        path = about.with_suffix(".npy")
        try:
            states: States = np.load(path, mmap_mode="r", allow_pickle=False)
            problem = "" if states.shape == (ends[-1], self._hidden) else f"holds {states.shape[0]} tokens"
            problem = problem or ("" if _checksum(states) == checksum else "is damaged")
        except (OSError, ValueError) as error:
            problem = f"cannot be read ({error})"
        if problem:
            say(f"frozen layers: {path} {problem}; its states are made anew")
            _remove(about)
            return
        self._arrays[about.stem] = states
        for number, key in enumerate(keys):
            self._places.setdefault(key, _Place(about.stem, ends[number], ends[number + 1]))

    def _differs(self, stored: Sequence[PairTokens]) -> str:
        """Compute the states of a few stored pairs again and describe how they differ; empty when they do not."""
        if not stored:
            return ""
        places = sorted({int(place) for place in np.linspace(0, len(stored) - 1, CHECKED)})
        for _, states in self._computed([stored[place] for place in places]):
            for key, again in states:
                known = self._states(key)
                if np.linalg.norm(again - known) > SAME[self._bf16] * np.linalg.norm(known):
                    return "holds other hidden states than this model computes"
        return ""

    def _computed(self, pairs: Sequence[PairTokens]) -> Iterator[tuple[list[int], list[tuple[bytes, States]]]]:
        """Yield indices of pairs with the keys and states of their segments, pass by pass."""
        device = next(self._model.parameters()).device
        before, self._split.source = self._split.source, None
        self._model.eval()

        def of_pass(batch: PairBatch) -> list[tuple[bytes, States]]:
            states = frozen_states(self._model, to_device(batch, device)).float().cpu().numpy()
            flat = (states[:, 0] if self._cutting.first_only else states).reshape(-1, self._hidden)
            return [(segment.key, flat[segment.places]) for segment in self._cutting.of_batch(batch)]

        try:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
                yield from computed(of_pass, pairs, self._max_tokens, self._row_format, "frozen layers")
        finally:
            self._split.source = before

    def _check_disk(self, missing: Sequence[PairTokens]) -> None:
        """Say how much the states of `missing` pairs take. Errors: `ResourceError` for a disk that is too small."""
        segments = {each for pair in missing for each in self._cutting.of_pair(pair) if each.key not in self._places}
        size = sum(each.tokens for each in segments) * self._hidden * np.dtype(np.float32).itemsize
        if not size:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        what = f"the hidden states of {len(missing):,} rows take {size / GIB:.2f} GiB"
        if size > free:
            fix = "free some space, set HEADWATER_CACHE to another disk, or leave --freeze-layers out"
            raise ResourceError(str(self.folder), f"{what}, and {free / GIB:.2f} GiB are free", fix)
        say(f"frozen layers: {what} on disk, of {free / GIB:.1f} GiB that are free")

    def _add(self, missing: Sequence[PairTokens]) -> None:
        """Compute the states of `missing` pairs, this process's share of them, and map the files of all processes."""
        if not missing:
            return
        _remove_unused(self.folder)
        state = PartialState()
        mine = missing[state.process_index :: state.num_processes]
        share = -(len(missing) // -state.num_processes)
        # Several processes meet after each window, so that nobody waits for another longer than a window takes.
        window = share if state.num_processes == 1 else WINDOW
        known = set(self._places)
        for start in range(0, share, window):
            self._write(mine[start : start + window], known)
            state.wait_for_everyone()
        self._open(missing)

    def _write(self, pairs: Sequence[PairTokens], known: set[bytes]) -> None:
        """Compute the states of pairs into files; what is finished is kept when the command is stopped."""
        kept: dict[bytes, States] = {}
        try:
            for _, states in self._computed(pairs):
                kept |= {key: value for key, value in states if key not in known}
                if sum(value.nbytes for value in kept.values()) >= SHARD:
                    self._flush(kept, known)
        finally:
            self._flush(kept, known)

    def _flush(self, kept: dict[bytes, States], known: set[bytes]) -> None:
        """Write states to a file of their own, and forget them."""
        if not kept:
            return
        name = xxhash.xxh3_128_hexdigest(b"".join(kept))
        states = np.concatenate(list(kept.values()))
        files.write_atomically(self.folder / f"{name}.npy", lambda path: np.save(path, states))
        about = {
            "keys": [key.hex() for key in kept],
            "lengths": [len(value) for value in kept.values()],
            "checksum": _checksum(states),
        }
        files.write_json(self.folder / f"{name}.json", about)
        known |= set(kept)
        kept.clear()


def _key(model: Any, split: Split, cutting: Cutting, bf16: bool) -> str:
    """Return the hash of everything that hidden states depend on, except tokens, in hexadecimal."""
    body = backbone(model)
    settings = {name: value for name, value in body.config.to_dict().items() if name not in UNRELATED}
    about = repr((FORMAT, type(body).__name__, len(split.frozen), cutting, bf16))
    digest = xxhash.xxh3_128((about + json.dumps(settings, sort_keys=True, default=str)).encode())
    held = set(split.held)
    for place, module in body.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if module in held:
                digest.update(f"{place}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def _cost(pairs: Sequence[PairTokens]) -> int:
    return sum(tokens_of(pair, "shared") for pair in pairs)


def _checksum(states: States) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(states).data)


def _remove(about: Path) -> None:
    """Remove a file of states, the one that makes it valid first."""
    about.unlink(missing_ok=True)
    about.with_suffix(".npy").unlink(missing_ok=True)


def _remove_unused(folder: Path) -> None:
    """Remove the folders beside `folder` that were not used for `KEPT_DAYS` days, and mark this one as used."""
    os.utime(folder)
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for other in folder.parent.iterdir():
        if other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)
