"""Scores of responses, and values of single tokens, from a model and a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch

from headwater.errors import ModelError
from headwater.forward.attention import is_encoder
from headwater.forward.distributions import log_collision, reference_kl
from headwater.forward.frozen_layers import hold
from headwater.forward.head import log_probs
from headwater.forward.hidden_states import hidden_states, row_logits
from headwater.forward.packing import SIDES, PairBatch
from headwater.losses import Loss, LossBase, PairLoss, PairScores, Score
from headwater.models.positions import limit_of

ScoreFunction = Callable[[torch.nn.Module, PairBatch], PairScores]
TokenFunction = Callable[[torch.nn.Module, PairBatch], torch.Tensor]
"""Maps a model and a batch to a value for each of the N response tokens."""


def token_log_probs(model: torch.nn.Module, batch: PairBatch) -> torch.Tensor:
    """Return the log-probability of every response token, [N] float32 (float64 for a float64 model).

    The head runs at predicting positions only. The first response token is included: the last prompt token predicts it.
    """
    hidden = hidden_states(model, batch)[batch["predictor"]]
    targets = batch["input_ids"].flatten()[batch["position"]]
    return log_probs(model, hidden, targets)[batch["token"]]


def policy_scores(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return the log-probability of every response: the weighted sum over its tokens."""
    return _sums(token_log_probs(model, batch), batch)


def exact_policy_scores(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return `policy_scores` summed in float64, so that values of long responses keep their digits."""
    return _sums(token_log_probs(model, batch).double(), batch)


def self_likelihood_scores(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return `policy_scores` with `self_likelihood`: how likely the model itself is to generate each response."""
    hidden = hidden_states(model, batch)[batch["predictor"]]
    by_token = log_probs(model, hidden, batch["input_ids"].flatten()[batch["position"]])
    with torch.no_grad():
        self_likelihoods = (by_token - log_collision(model, hidden))[batch["token"]]
    means = _by_response(self_likelihoods, batch) / batch["lengths"]
    return _sums(by_token[batch["token"]], batch, self_likelihood=means)


def divergence_scores(reference: torch.nn.Module) -> ScoreFunction:
    """Return a function like `policy_scores` that adds the `divergence` from `reference`, a frozen model.

    `reference` takes part in every forward pass, and must be set to the row format of the batches
    (forward/format_check.py).
    """

    def score(model: torch.nn.Module, batch: PairBatch) -> PairScores:
        hidden = hidden_states(model, batch)[batch["predictor"]]
        # The reference is frozen; without gradients its activations are not stored.
        with torch.no_grad():
            other = hidden_states(reference, batch)[batch["predictor"]]
        by_token = log_probs(model, hidden, batch["input_ids"].flatten()[batch["position"]])[batch["token"]]
        kl = reference_kl(model, reference, hidden, other)[batch["token"]]
        weighted = kl * batch["weight"].to(kl.dtype)
        return _sums(by_token, batch, divergence=_by_response(weighted, batch))

    return score


def score_for(loss: LossBase) -> ScoreFunction:
    """Return the score function of a policy with the fields that `loss` needs, other than those of a live reference."""
    return self_likelihood_scores if "self_likelihood" in loss.needs else policy_scores


def reference_scores(batch: PairBatch, dtype: torch.dtype = torch.float32) -> PairScores | None:
    """Return the weighted sums of the reference log-probabilities in the batch; None where it has none."""
    return None if batch["reference"] is None else _sums(batch["reference"].to(dtype), batch)


class ScoredLoss(NamedTuple):
    """Loss of every pair of a batch, with the scores it is computed from."""

    result: PairLoss
    policy: PairScores
    reference: PairScores | None


def pair_loss(model: torch.nn.Module, score: ScoreFunction, loss: Loss, batch: PairBatch) -> ScoredLoss:
    """Return the loss and rewards of every pair of a batch, each [pairs], with the scores of `model` and the reference.

    Training, evaluation and notebooks compute losses here. The reference is what the batch carries of it
    (`with_reference`); `batch` lies on the device of `model`. Errors: those of `score` and `loss`.
    """
    policy = score(model, batch)
    reference = reference_scores(batch, policy.chosen.value.dtype)
    return ScoredLoss(loss(policy, reference), policy, reference)


def _sums(values: torch.Tensor, batch: PairBatch, **fields: torch.Tensor) -> PairScores:
    """Return scores: per-token `values` [N], times their weights, summed over each response, and `fields` beside."""
    weight = batch["weight"].to(values.dtype)
    value, weights = _by_response(values * weight, batch), _by_response(weight, batch)
    return _pair_scores(batch, value=value, weight=weights, **fields)


def _by_response(values: torch.Tensor, batch: PairBatch) -> torch.Tensor:
    """Sum per-token `values` [N] over each response: [SIDES × pairs]."""
    return values.new_zeros(len(batch["lengths"])).index_add(0, batch["slot"], values)


def _pair_scores(batch: PairBatch, **fields: torch.Tensor) -> PairScores:
    """Arrange the `fields` of scores, each [SIDES × pairs], by side."""
    fields |= {"tokens": batch["lengths"]}
    chosen, rejected = (
        Score(**{name: values.view(-1, SIDES)[:, side] for name, values in fields.items()}) for side in range(SIDES)
    )
    return PairScores(chosen, rejected, batch["columns"])


def last_tokens(batch: PairBatch) -> torch.Tensor:
    """Return the row position of the last token of every response, [SIDES × pairs]; for an empty one, any position."""
    return batch["position"][batch["token"][batch["lengths"].cumsum(0) - 1]]


def token_rewards(model: torch.nn.Module, batch: PairBatch) -> torch.Tensor:
    """Return the reward of the prefix that ends at every response token, [N] float32 (float64 for a float64 model).

    Errors: `ModelError` for an encoder: its tokens see what follows, so every prefix would need its own pass.
    """
    if not kind_of(model).causal:
        problem = "is an encoder, which has no rewards of beginnings in one pass"
        raise ModelError(type(model).__name__, problem, "use a causal model, or cut the responses with --keep")
    return _rewards(model, hidden_states(model, batch)[batch["position"]])[batch["token"]]


def response_rewards(model: torch.nn.Module, batch: PairBatch) -> torch.Tensor:
    """Return the values of the tokens of a reward model, [N], of which only the last of each response counts."""
    return (ENCODER_REWARD_MODEL if is_encoder(model) else REWARD_MODEL).token_values(model, batch)


def reward_scores(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return the reward of every response by a reward model of either kind; 0 where a row has no such response."""
    return (ENCODER_REWARD_MODEL if is_encoder(model) else REWARD_MODEL).scores(model, batch)


def _causal_rewards(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return the score head at the last token of every response.

    transformers pools the last token of a row, which is wrong for two responses in one row.
    """
    rewards = _rewards(model, hidden_states(model, batch)[last_tokens(batch)])
    return _pair_scores(batch, value=rewards.masked_fill(batch["lengths"] == 0, 0.0))


def _encoder_rewards(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return an encoder's rewards of its rows, each of one response, by its own pooling."""
    there, rewards = batch["lengths"] > 0, _row_rewards(model, batch)
    return _pair_scores(batch, value=rewards.new_zeros(len(there)).masked_scatter(there, rewards))


def _repeated_rewards(model: torch.nn.Module, batch: PairBatch) -> torch.Tensor:
    """Return an encoder's rewards at every token of their response, [N]: a labelled row has one response."""
    lengths = batch["lengths"]
    return _row_rewards(model, batch).repeat_interleave(lengths[lengths > 0])


def _row_rewards(model: Any, batch: PairBatch) -> torch.Tensor:
    """Return an encoder's rewards [R] of rows of one response each. Errors: `ModelError` for rows that are too long."""
    width, longest = _longest_in(batch), limit_of(model)
    if longest is not None and width > longest:
        problem = f"reads {longest} tokens, a prompt with its response has {width}"
        raise ModelError(type(model).__name__, problem, f"give --max-length {longest}")
    return one_label(model, row_logits(model, batch))


def _longest_in(batch: PairBatch) -> int:
    """Return the number of tokens of the longest row."""
    return max((tree.length for tree in batch["trees"]), default=batch["input_ids"].shape[1])


def _rewards(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Apply the score head to [n, hidden]: [n], float32 or wider. Errors: `ModelError`."""
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Module):
        raise ModelError(type(model).__name__, "has no score head", "name a sequence-classification model")
    return one_label(model, head(hidden))


def one_label(model: torch.nn.Module, rewards: torch.Tensor) -> torch.Tensor:
    """Take the only column of [n, labels], in float32 or wider. Errors: `ModelError` for several labels."""
    if rewards.shape[1] != 1:
        raise ModelError(type(model).__name__, f"has {rewards.shape[1]} labels", "a reward model has one")
    return rewards[:, 0] if rewards.dtype == torch.float64 else rewards[:, 0].float()


@dataclass(frozen=True)
class ModelKind:
    """How responses are scored with a kind of model, and which rows it reads."""

    name: str
    values: Literal["log-probabilities", "rewards"]
    """What its scores are, in messages."""
    token_values: TokenFunction
    """Value of every response token: a log-probability, or the reward of the prefix that ends there.

    Of an encoder only the last token of a response has a reward of its own.
    """
    scores: ScoreFunction
    """Value of every response."""
    causal: bool = True
    """Whether a token sees only what is before it, so that rows of several responses can be read in one pass."""


POLICY = ModelKind("policy", "log-probabilities", token_log_probs, policy_scores)
REWARD_MODEL = ModelKind("reward model", "rewards", token_rewards, _causal_rewards)
ENCODER_REWARD_MODEL = ModelKind("encoder reward model", "rewards", _repeated_rewards, _encoder_rewards, causal=False)


def kind_of(model: torch.nn.Module) -> ModelKind:
    """Return the kind of a loaded model, by its class and its head."""
    if is_encoder(model):
        return ENCODER_REWARD_MODEL
    return REWARD_MODEL if isinstance(getattr(model, "score", None), torch.nn.Module) else POLICY


def response_values(score: ScoreFunction) -> Callable[[torch.nn.Module, PairBatch], torch.Tensor]:
    """Return a function that gives the value of every response in one tensor."""

    def values(model: torch.nn.Module, batch: PairBatch) -> torch.Tensor:
        scores = score(model, to_device(batch, next(model.parameters()).device))
        return torch.cat([scores.chosen.value, scores.rejected.value])

    return values


def to_device(batch: PairBatch, device: torch.device) -> PairBatch:
    """Move the tensors of a batch to a device."""
    moved = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    moved["columns"] = {name: column.to(device) for name, column in batch["columns"].items()}
    return cast(PairBatch, moved)


class ScoredModel(torch.nn.Module):
    """A model with its score function, as one module whose forward scores a batch.

    Data parallelism wraps a module and averages the gradients of its forward, so that this is what has to be wrapped.
    Everything else that is asked of it (`config`, `get_input_embeddings`, `save_pretrained`, …) is asked of the model.
    """

    def __init__(self, model: torch.nn.Module, score: ScoreFunction) -> None:
        super().__init__()
        self.model = model
        self._score = score

    def forward(self, batch: PairBatch) -> PairScores:
        """Return the scores of the responses of a batch."""
        return self._score(self.model, batch)

    def train(self, mode: bool = True) -> ScoredModel:
        """Set the mode of all modules, but for frozen layers, which stay in evaluation mode."""
        super().train(mode)
        hold(self.model)
        return self

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the model, where the module itself has none of that name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


def own_scores(model: torch.nn.Module, batch: PairBatch) -> PairScores:
    """Return the scores of a `ScoredModel`, or of what data parallelism has made of it, by its own forward."""
    scores: PairScores = model(batch)
    return scores
