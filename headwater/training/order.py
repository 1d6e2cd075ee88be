"""Batch sampler: the pairs of every batch, divided among processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch


class Shares(torch.utils.data.Sampler[list[int]]):
    """Samples the share of one process of every batch; each epoch has a new order and contains every pair once.

    The samplers of transformers and accelerate fill the last batch up with pairs that were seen before. Here it stays
    small; where it has too few pairs for all processes, they go with the batch before.
    """

    def __init__(self, pairs: int, batch: int, seed: int, process: int = 0, processes: int = 1, least: int = 1) -> None:
        """Batches hold `batch` pairs a process; a rest of fewer than `least` a process joins the last whole batch."""
        self._pairs, self._batch, self._seed, self._least = pairs, batch * processes, seed, least * processes
        self._process, self._processes = process, processes
        self.epoch = 0
        """The epoch that comes next."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(self._pairs, self._batch)
        return max(1, whole + (rest >= self._least))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of this process's pairs, batch by batch."""
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        self.epoch += 1
        order = torch.randperm(self._pairs, generator=generator).tolist()
        for number in range(len(self)):
            end = self._pairs if number == len(self) - 1 else (number + 1) * self._batch
            yield order[number * self._batch : end][self._process :: self._processes]
