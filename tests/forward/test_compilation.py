"""Compiled layers: the same losses and gradients as layers that are not."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from headwater.errors import UsageError
from headwater.forward import compilation
from headwater.forward.attention import TREES, Plan, attend_with, tree_attention, visible
from headwater.forward.compilation import FUSED, compile_layers, fused_attention, slopes
from headwater.forward.packing import Tree, collate
from headwater.forward.scores import policy_scores
from tests.forward.test_parity import pairs_with_openings, policy

PLAN = Plan([Tree(5, (4, 3)), Tree(2, (6,)), Tree(1, (1, 1))])
LENGTH = sum(PLAN.lengths)


def attended(attend: Any, window: int | None, dtype: torch.dtype) -> list[torch.Tensor]:
    """What comes out of attention with two query heads a key head, and its three gradients."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, LENGTH, 8, generator=generator, dtype=dtype) for heads in (4, 2, 2))
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    found, _ = attend(torch.nn.Module(), *inputs, None, plan=PLAN, scaling=0.3, sliding_window=window)
    return [found.detach(), *torch.autograd.grad(found.sin().sum(), inputs)]


@pytest.mark.parametrize("window", [None, 3])
def test_attention_with_an_own_backward_pass_is_attention(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_slopes", slopes)
    for found, expected in zip(
        attended(fused_attention, window, torch.float64), attended(tree_attention, window, torch.float64), strict=True
    ):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_its_backward_pass_in_bf16_is_no_worse_than_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_slopes", slopes)
    exact = attended(tree_attention, None, torch.float64)

    def errors(attend: Any) -> list[float]:
        pairs = zip(attended(attend, None, torch.bfloat16), exact, strict=True)
        return [float((found.double() - right).norm() / right.norm()) for found, right in pairs]

    # Both start from inputs rounded to bf16, whose error is part of either.
    for own, torch_s in zip(errors(fused_attention), errors(tree_attention), strict=True):
        assert own <= 1.1 * torch_s


def test_slopes_of_one_tree_are_those_of_torch() -> None:
    q, k, v, g = (torch.randn(1, 2, 9, 4, dtype=torch.float64) for _ in range(4))
    mask = torch.zeros(9, 9, dtype=torch.float64).masked_fill(
        ~visible(Tree(4, (3, 2)), None, torch.device("cpu")), float("-inf")
    )
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    row = F.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.5)
    expected = torch.autograd.grad(row, inputs, g)
    log_sum = (q @ k.transpose(2, 3) * 0.5 + mask).logsumexp(-1, keepdim=True)
    for found, right in zip(slopes(q, k, v, mask, row, log_sum, g, 0.5), expected, strict=True):
        assert torch.allclose(found, right, rtol=0, atol=1e-12)


@pytest.mark.skipif(
    os.environ.get("ATEN_CPU_CAPABILITY") == "default",
    reason="torch 2.13 writes C++ that does not compile where it is told to use no vector instructions",
)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++, which is not here")
def test_compiled_layers_give_the_same_losses_and_gradients() -> None:
    model, pairs = policy("qwen2", torch.float32), pairs_with_openings()
    attend_with(model, TREES)

    def run() -> list[torch.Tensor]:
        model.zero_grad()
        scores = policy_scores(model, collate(pairs, "shared"))
        (scores.chosen.value - scores.rejected.value).sin().sum().backward()
        return [scores.chosen.value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected, names = run(), list(model.state_dict())
    compile_layers(model)
    assert model.config._attn_implementation == FUSED
    assert list(model.state_dict()) == names
    for found, right in zip(run(), expected, strict=True):
        assert (found - right).norm() <= 1e-5 * right.norm()


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = policy("llama")
    monkeypatch.setattr(model, "_no_split_modules", [])
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    with pytest.raises(UsageError, match="does not name its layers"):
        compile_layers(model)

    def broken(function: Any, **settings: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match="no C\\+\\+ compiler"):
        compile_layers(model)
