"""Log-probabilities in chunks are those of the whole vocabulary at once, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from headwater.forward import head
from tests.forward.test_parity import policy

N, HIDDEN, VOCAB = 23, 32, 61


class Config:
    def __init__(self, scale: float | None, cap: float | None) -> None:
        self.logit_scale, self.final_logit_softcapping = scale, cap

    def get_text_config(self) -> Config:
        return self


class Model:
    """The least of a model that a head needs."""

    def __init__(self, layer: torch.nn.Module, scale: float | None = None, cap: float | None = None) -> None:
        self.config = Config(scale, cap)
        self._layer = layer
        self._embeddings = torch.nn.Embedding(VOCAB, HIDDEN)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self._layer

    def get_input_embeddings(self) -> torch.nn.Module:
        return self._embeddings


class Wrapped(torch.nn.Linear):
    """A head that is more than its weight."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) + hidden.sum(1, keepdim=True) * self.weight[:, 0]


def naive(model: Model, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model.get_output_embeddings()(hidden) * (model.config.logit_scale or 1.0)
    if cap := model.config.final_logit_softcapping:
        logits = torch.tanh(logits / cap) * cap
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def gradients(compute: Any, layer: torch.nn.Module, hidden: torch.Tensor, weigh: torch.Tensor) -> list[torch.Tensor]:
    hidden = hidden.clone().requires_grad_()
    layer.zero_grad()
    values = compute(hidden)
    (values * weigh).sum().backward()
    grads = [hidden.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]
    return [values.detach(), *(g.clone() for g in grads if g is not None)]


@pytest.mark.parametrize("chunk", [1, 5 * VOCAB, 10**9])
@pytest.mark.parametrize("kind", [torch.nn.Linear, Wrapped])
@pytest.mark.parametrize(("bias", "scale", "cap"), [(False, None, None), (True, 0.3, None), (True, None, 2.0)])
def test_chunks_equal_the_whole(
    chunk: int, kind: type[torch.nn.Linear], bias: bool, scale: float | None, cap: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(head, "CHUNK", chunk)
    monkeypatch.setattr(head, "BLOCK", {"cpu": max(1, chunk // 2)})
    torch.manual_seed(0)
    layer = kind(HIDDEN, VOCAB, bias=bias).double()
    model = Model(layer, scale, cap)
    hidden, weigh = torch.randn(N, HIDDEN).double() * 3, torch.randn(N).double()
    targets = torch.randint(VOCAB, (N,))
    found = gradients(lambda h: head.log_probs(model, h, targets), layer, hidden, weigh)
    expected = gradients(lambda h: naive(model, h, targets), layer, hidden, weigh)
    assert len(found) == len(expected) == 3 + bias
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_gradients_pass_autograds_own_check() -> None:
    layer = torch.nn.Linear(4, 7).double()
    model, targets = Model(layer, 0.5, 1.5), torch.tensor([0, 3, 6])

    def values(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        shape = head.Shape(0.5, 1.5)
        return head._LinearLogProbs.apply(hidden, weight, bias, targets, shape)

    assert model.config.logit_scale == 0.5
    hidden = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(values, (hidden, layer.weight, layer.bias))


def test_a_frozen_head_gets_no_gradient_and_passes_it_on() -> None:
    layer = torch.nn.Linear(HIDDEN, VOCAB, bias=False).requires_grad_(False)
    hidden = torch.randn(N, HIDDEN, requires_grad=True)
    head.log_probs(Model(layer), hidden, torch.randint(VOCAB, (N,))).sum().backward()
    assert layer.weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().max() > 0


def test_bf16_is_no_worse_than_naive_bf16() -> None:
    """Against float64: log-probabilities and gradients of the head under autocast, ours and the plain way."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    hidden, targets, weigh = torch.randn(400, HIDDEN) * 3, torch.randint(VOCAB, (400,)), torch.randn(400)
    exact = torch.nn.Linear(HIDDEN, VOCAB, bias=False).double()
    exact.load_state_dict({"weight": layer.weight.double()})
    expected = gradients(lambda h: naive(Model(exact), h, targets), exact, hidden.double(), weigh.double())

    def plain(h: torch.Tensor) -> torch.Tensor:
        return layer(h).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]

    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(lambda h: head.log_probs(Model(layer), h, targets), layer, hidden, weigh)
        theirs = gradients(plain, layer, hidden, weigh)
    for one, other, true in zip(ours, theirs, expected, strict=True):
        assert torch.linalg.norm(one - true) <= 1.05 * torch.linalg.norm(other - true)


def test_logits_of_all_positions_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = head.Head.logits
    monkeypatch.setattr(head, "CHUNK", 4 * VOCAB)
    monkeypatch.setattr(head.Head, "logits", lambda self, h: sizes.append(len(h)) or whole(self, h))
    layer = torch.nn.Linear(HIDDEN, VOCAB)
    hidden = torch.randn(N, HIDDEN, requires_grad=True)
    head.log_probs(Model(layer), hidden, torch.randint(VOCAB, (N,))).sum().backward()
    assert sum(sizes) == 2 * N
    assert max(sizes) == 4


def test_a_model_without_a_head_is_refused() -> None:
    model = transformers.AutoModel.from_config(policy("llama").config)
    with pytest.raises(head.ModelError, match="has no language-model head"):
        head.log_probs(model, torch.randn(2, 32), torch.zeros(2, dtype=torch.int64))
