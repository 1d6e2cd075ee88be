"""One of two processes of a sharded model (FSDP2): its gradient against the whole model's (test_distributed.py)."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from headwater.forward import head
from headwater.forward.packing import collate
from headwater.forward.scores import ScoredModel, policy_scores
from headwater.models.adapters import adapted
from headwater.models.lora_options import LoraOptions
from tests.forward.test_parity import pairs_with_openings, policy


def total(model: Any, pairs: list[Any]) -> torch.Tensor:
    scores = model(collate(pairs))
    return (scores.chosen.value - 2 * scores.rejected.value).sum()


def scored(tied: bool, adapters: bool) -> ScoredModel:
    """The same model in every process; with adapters, on the head too, that are not zero."""
    model: Any = policy("llama", tied=tied)
    if adapters:
        torch.manual_seed(0)
        model = adapted(model, "policy", LoraOptions(4, target_modules="q_proj,down_proj,lm_head"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return ScoredModel(model, policy_scores)


def main(tied: bool, adapters: bool) -> None:
    head.CHUNK = 200  # several chunks
    pairs = pairs_with_openings()
    whole = scored(tied, adapters)
    total(whole, pairs).backward()
    sharded: Any = scored(tied, adapters)
    inner = sharded.model.get_base_model() if adapters else sharded.model
    for layer in inner.model.layers:
        fully_shard(layer)
    fully_shard(sharded)
    mine = pairs[dist.get_rank() :: dist.get_world_size()]
    # Data parallelism averages over processes.
    (total(sharded, mine) * dist.get_world_size()).backward()
    expected = {name: parameter for name, parameter in whole.named_parameters() if parameter.requires_grad}
    trained = {name: parameter for name, parameter in sharded.named_parameters() if parameter.requires_grad}
    assert trained.keys() == expected.keys()
    for name, parameter in trained.items():
        assert isinstance(parameter.grad, DTensor), name
        gradient = parameter.grad.full_tensor()
        right = expected[name].grad
        assert right is not None
        assert torch.allclose(gradient, right, rtol=0, atol=1e-6), name
    print("same", len(expected))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for tied, adapters in ((False, False), (True, False), (False, True)):
        main(tied, adapters)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that takes itself down in order
