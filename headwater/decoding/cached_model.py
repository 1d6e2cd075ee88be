"""A causal language model with a key–value cache for rows of any length.

The keys and values of every row end at the right edge of one tensor; shorter rows have unused slots on the left, which
the attention mask excludes (`.`):

    slot        0  1  2  3  4  5
    row a      a0 a1 a2 a3 a4 a5        6 tokens read
    row b       .  . b0 b1 b2 b3        4 tokens read
    row c       .  .  .  . c0 c1        2 tokens read: it waits while the other model continues it

A row is read lazily: one that was not queried for a while catches up on all missing tokens in one pass, and one that is
no longer queried leaves the cache. Rows with the same prompt read it once: a new row copies it from a row that has read
it. The tokens of a row are contiguous, without holes, so that sliding windows keep their meaning.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from headwater.errors import ModelError
from headwater.forward.hidden_states import text_logits


class Text(Protocol):
    """Tokens of a row.

    They may be appended or cut back at the end; a prefix that was read stays, except its last token.
    """

    ids: list[int]

    @property
    def prompt(self) -> Sequence[int]:
        """The beginning of the row, which is never cut back."""


class Slots(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer in a buffer that grows by half, so that a new token is appended without copying."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._reserved: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [rows, heads, new, width]; return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        before = self.keys.shape[-2]
        after = before + key_states.shape[-2]
        if self._reserved is None or self._reserved[0].shape[-2] < after:
            self._reserved = tuple(  # type: ignore[assignment]
                torch.cat([old, old.new_empty((*old.shape[:2], after + after // 2 + 32 - before, old.shape[3]))], dim=2)
                for old in (self.keys, self.values)
            )
        assert self._reserved is not None
        for reserved, new in zip(self._reserved, (key_states, value_states), strict=True):
            reserved[..., before:after, :] = new
        self.keys, self.values = (reserved[..., :after, :] for reserved in self._reserved)
        return self.keys, self.values

    def shorten(self, length: int) -> None:
        """Drop the slots behind `length`; the buffer keeps its size."""
        self.keys, self.values = (each[..., :length, :] for each in (self.keys, self.values))

    def replace(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Replace keys and values."""
        self.keys, self.values, self._reserved = keys, values, None


class CachedModel:
    """A causal language model that reads only the new tokens of each row."""

    def __init__(self, model: Any) -> None:
        """Take a model in evaluation mode."""
        self._model = model
        accepted = inspect.signature(model.forward).parameters
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in accepted}
        self._device = next(model.parameters()).device
        self._cache: Cache | None = None
        self._rows: list[Text] = []
        self._read: list[int] = []
        self._width = 0
        self.tokens = 0
        """Number of tokens fed to the model so far, padding not counted."""
        self.anew = False
        """Whether every row is read alone and from its beginning each time (decoding/cache_check.py)."""

    @property
    def model(self) -> Any:
        """The wrapped model."""
        return self._model

    @torch.inference_mode()
    def read(self, rows: Sequence[Text], last: Sequence[int]) -> list[torch.Tensor]:
        """Return the logits that follow each of the `last` prefixes of every row, [last, vocabulary] a row.

        The longest prefix is the whole row. Errors: `ModelError` for a model without an ordinary cache.
        """
        if self.anew:
            self.tokens += sum(len(row.ids) for row in rows)
            return [text_logits(self._model, row.ids, count) for row, count in zip(rows, last, strict=True)]
        wanted = {id(row): count for row, count in zip(rows, last, strict=True)}
        # Prompts are copied before unused rows are dropped, since such a row may be the only one that has read a
        # prompt.
        self._adopt(rows, wanted)
        self._drop_rows(wanted)
        fresh = self._unknown(rows)
        # Of several new rows with one prompt the first reads it, and the others copy it from there.
        firsts = {tuple(row.prompt): row for row in reversed(fresh)}
        if len(firsts) < len(fresh):
            self._begin(list(firsts.values()), wanted)
            self._adopt(rows, wanted)
            fresh = self._unknown(rows)
        found: dict[int, torch.Tensor] = {}
        if self._rows:
            self._crop([wanted[id(row)] for row in self._rows])
            found |= self._read_on(wanted)
        if fresh:
            found |= self._begin(fresh, wanted)
        return [found[id(row)] for row in rows]

    def _unknown(self, rows: Sequence[Text]) -> list[Text]:
        known = {id(row) for row in self._rows}
        return [row for row in rows if id(row) not in known]

    def _adopt(self, rows: Sequence[Text], wanted: Mapping[int, int]) -> None:
        """Let new rows copy their prompt from a row that has read it, before such a row leaves the cache."""
        donors = {tuple(row.prompt): place for place, row in enumerate(self._rows)}
        found = [(row, donors[key]) for row in self._unknown(rows) if (key := tuple(row.prompt)) in donors]
        # Logits are not cached: tokens whose logits are wanted must be fed again, and are not copied.
        shared = [min(len(row.prompt), len(row.ids) - wanted[id(row)]) for row, _ in found]
        if not found or min(shared) < 1:
            return
        index = torch.tensor([*range(len(self._rows)), *(place for _, place in found)], device=self._device)
        for layer in self._layers():
            layer.replace(layer.keys[index], layer.values[index])
        starts = [self._width - read for read in self._read]
        spans = [[(start, self._width)] for start in starts]
        spans += [[(starts[place], starts[place] + size)] for (_, place), size in zip(found, shared, strict=True)]
        self._rows, self._read = [*self._rows, *(row for row, _ in found)], [*self._read, *shared]
        self._align(spans)

    def _drop_rows(self, wanted: Iterable[int]) -> None:
        """Remove the rows that are not queried."""
        stay = [place for place, row in enumerate(self._rows) if id(row) in wanted]
        if len(stay) == len(self._rows):
            return
        self._rows, self._read = [self._rows[place] for place in stay], [self._read[place] for place in stay]
        if not stay:
            self._cache, self._width = None, 0
            return
        width, start = max(self._read), self._width - max(self._read)
        index = torch.tensor(stay, device=self._device)
        for layer in self._layers():
            layer.replace(*(each[index, :, start:] for each in (layer.keys, layer.values)))
        self._width = width

    def _crop(self, last: Sequence[int]) -> None:
        """Drop cached tokens that have changed, and those whose logits are wanted again."""
        keep = [min(read, len(row.ids) - count) for row, read, count in zip(self._rows, self._read, last, strict=True)]
        excess = [read - kept for read, kept in zip(self._read, keep, strict=True)]
        if not any(excess):
            return
        before, self._read = self._read, keep
        # The same number of tokens from every row: the buffer is shortened, and nothing is copied.
        if len(set(excess)) == 1:
            self._width -= excess[0]
            for layer in self._layers():
                layer.shorten(self._width)
            return
        starts = [self._width - read for read in before]
        self._align([[(start, start + kept)] for start, kept in zip(starts, keep, strict=True)])

    def _align(self, spans: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Move the slots of every row, given as spans, to the right edge."""
        width = max(self._read)
        # A gather from the old slots to the new ones; slot 0 fills the unused places on the left, which the mask
        # excludes.
        index = torch.zeros(len(spans), width, dtype=torch.long)
        for row, parts in enumerate(spans):
            slots = torch.cat([torch.arange(*part) for part in parts])
            index[row, width - len(slots) :] = slots
        index = index.to(self._device)[:, None, :, None]
        for layer in self._layers():
            layer.replace(
                *(
                    each.gather(2, index.expand(-1, each.shape[1], -1, each.shape[3]))
                    for each in (layer.keys, layer.values)
                )
            )
        self._width = width

    def _read_on(self, wanted: dict[int, int]) -> dict[int, torch.Tensor]:
        """Feed every cached row its unread tokens, padded on the right, and align the rows afterwards."""
        pending = [row.ids[read:] for row, read in zip(self._rows, self._read, strict=True)]
        sizes = [len(ids) for ids in pending]
        block, before = max(sizes), self._width
        ids = torch.tensor([[*ids, *[0] * (block - len(ids))] for ids in pending], device=self._device)
        read = torch.tensor(self._read, device=self._device)[:, None]
        mask = None
        if min(sizes) < block or min(self._read) < before:
            old = torch.arange(before, device=self._device) >= before - read
            new = torch.arange(block, device=self._device) < torch.tensor(sizes, device=self._device)[:, None]
            mask = torch.cat([old, new], dim=1)
        logits = self._forward(ids, read + torch.arange(block, device=self._device), mask, self._cache, block)
        spans = [
            [(before - read, before), (before, before + size)] for read, size in zip(self._read, sizes, strict=True)
        ]
        self._read = [read + size for read, size in zip(self._read, sizes, strict=True)]
        self._width += block
        self.tokens += sum(sizes)
        if min(sizes) < block:
            self._align(spans)
        ends = zip(self._rows, sizes, strict=True)
        return {id(row): logits[place, size - wanted[id(row)] : size] for place, (row, size) in enumerate(ends)}

    def _begin(self, rows: Sequence[Text], wanted: dict[int, int]) -> dict[int, torch.Tensor]:
        """Read new rows from their beginning, padded on the left."""
        sizes = [len(row.ids) for row in rows]
        width, keep = max(sizes), max(wanted[id(row)] for row in rows)
        ids = torch.tensor([[*[0] * (width - len(row.ids)), *row.ids] for row in rows], device=self._device)
        places = torch.arange(width, device=self._device) - torch.tensor(
            [[width - size] for size in sizes], device=self._device
        )
        cache = Cache(layer_class_to_replicate=Slots)
        logits = self._forward(ids, places.clamp(min=0), None if min(sizes) == width else places >= 0, cache, keep)
        self.tokens += sum(sizes)
        if cache.get_seq_length() != width:
            raise ModelError(type(self._model).__name__, "has no ordinary key-value cache", "use a transformer")
        self._join(cache, width)
        self._rows, self._read = [*self._rows, *rows], [*self._read, *sizes]
        return {id(row): logits[place, keep - wanted[id(row)] :] for place, row in enumerate(rows)}

    def _join(self, other: Cache, width: int) -> None:
        """Append the rows of another cache to this one."""
        if self._cache is None:
            self._cache, self._width = other, width
            return
        widest = max(self._width, width)
        for layer, new in zip(self._layers(), other.layers, strict=True):
            layer.replace(
                *(
                    torch.cat([_widened(a, widest), _widened(b, widest)])
                    for a, b in ((layer.keys, new.keys), (layer.values, new.values))
                )
            )
        self._width = widest

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Cache | None, keep: int
    ) -> torch.Tensor:
        """Return logits [rows, keep, vocabulary], in float32 or wider."""
        extra = {"position_ids": positions, "logits_to_keep": keep}
        found = self._model(
            input_ids=ids,
            attention_mask=None if mask is None else mask.long(),
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in extra.items() if name in self._takes},
        ).logits[:, -keep:]
        logits: torch.Tensor = found if found.dtype.itemsize >= 4 else found.float()
        return logits

    def _layers(self) -> Sequence[Slots]:
        assert self._cache is not None
        layers: Sequence[Slots] = self._cache.layers
        return layers


def _widened(slots: torch.Tensor, width: int) -> torch.Tensor:
    """Pad [rows, heads, n, size] with empty slots on the left, to `width`."""
    return torch.nn.functional.pad(slots, (0, 0, width - slots.shape[2], 0))
