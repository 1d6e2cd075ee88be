"""Reward of every response to a prompt, from a reward model or from a policy and its reference; or its likelihood.

A prompt is read once for its responses (once for every `WIDEST` tokens of them). The value of a response does not
depend on the others, neither those of its own prompt nor other rows in the batch. A response starts at its own first
token, even where another one's encoding begins earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.console import say
from headwater.data.preference import Preference, Record
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import MAX_LENGTH, PairTokens, tokenize
from headwater.data.turns import EndToken
from headwater.errors import ModelError
from headwater.forward import halving
from headwater.forward.finite import check_scores
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import Group, RowFormat, collate_groups, fill
from headwater.forward.scores import TokenFunction, response_rewards, to_device, token_log_probs
from headwater.losses import DPO, BradleyTerry, LossBase, PairScores, Score
from headwater.models import loading, positions
from headwater.models.turn_ends import say_place
from headwater.rewards import reward_models
from headwater.rewards.reward_models import Rewarding

WIDEST = 2048
"""Maximum number of response tokens that share one prompt; on a CPU the cost of attention is quadratic in it."""
Rewards = list[float | None]
"""Of the responses of a row; None for one that is empty or too long."""
Reduce = Callable[[NDArray[np.float64]], float]
"""Maps the token values of a response to one number."""


@dataclass(frozen=True)
class Reading:
    """How responses are tokenized and batched."""

    end: EndToken
    max_length: int | None
    """Maximum tokens of prompt and response; a longer response gets no reward. None: `data.tokens.MAX_LENGTH`, or the
    number of positions of the model.
    """
    max_tokens: int
    """Maximum tokens of a forward pass."""


class ResponseScorer:
    """A model that rewards responses; built by `load_response_scorer`."""

    def __init__(self, name: str, tokenizer: Tokenizer, token_scorers: Sequence[TokenScorer], reading: Reading) -> None:
        self._name, self._tokenizer, self._token_scorers, self._reading = name, tokenizer, token_scorers, reading
        self.tokens = 0
        """Number of tokens read by the model so far, shared prompts counted once."""

    def __call__(self, records: Sequence[Record]) -> list[Rewards]:
        """Return the rewards of all responses, row by row. Errors: `UsageError` for a missing condition."""
        loading.check_conditions(self._name, (record.condition for record in records))
        rows = encoded(records, self._tokenizer, self._reading)
        places = [(row, place) for row, found in enumerate(rows) for place in found.places]
        rewards: list[Rewards] = [[None] * len(record.responses) for record in records]
        for token_scorer in self._token_scorers if places else ():
            values = token_scorer.read([value for found in rows for value in found.responses], self._reading.max_tokens)
            check_scores(np.array(values), [records[row].id for row, _ in places], self._name)
            for (row, place), value in zip(places, values, strict=True):
                rewards[row][place] = (rewards[row][place] or 0.0) + token_scorer.scale * value
        self.tokens += sum(tokens_read(found.responses, self._reading.max_tokens) for found in rows)
        return rewards


def load_response_scorer(
    name: str,
    reference: str | None,
    beta: float | None,
    reading: Reading,
    seed: int,
    reward_head: int | None = None,
) -> ResponseScorer:
    """Load a reward model, or a policy with the implicit reward of `reward_models.load`.

    An ensemble of reward models gives the mean of its members' rewards. Errors: those of `reward_models.load`.
    """
    found = reward_models.load(name, reference, beta, (), seed, reward_head)
    reading = _fitted(reading, *found.models)
    if isinstance(found.rule, BradleyTerry):
        say_place(found.tokenizer, reading.end)
    return ResponseScorer(name, found.tokenizer, _token_scorers(found), reading)


def _fitted(reading: Reading, *models: Any) -> Reading:
    """Return the options with a maximum length that all `models` can read.

    Errors: `UsageError` where it is too large.
    """
    return replace(reading, max_length=positions.fit(reading.max_length, *models))


def _token_scorers(found: Rewarding) -> list[TokenScorer]:
    """Return the scorers of `found`, which score single responses."""
    if isinstance(found.rule, BradleyTerry):
        return [reward_token_scorer(each, scale=1 / len(found.members)) for each in found.members]
    (policy,) = found.members
    if not isinstance(found.rule, DPO):
        return [TokenScorer(policy, token_log_probs, _rewarded_by(found.rule))]
    both = ((policy, found.rule.beta), (found.reference, -found.rule.beta))
    return [TokenScorer(each, token_log_probs, _sum, by) for each, by in both]


def _rewarded_by(rule: LossBase) -> Reduce:
    """Return the reward of a response under a loss without a reference, from its token log-probabilities."""

    def reward(values: NDArray[np.float64]) -> float:
        score = Score(torch.from_numpy(values).sum(), torch.tensor(len(values)))
        return rule(PairScores(score, score), None).chosen_reward.item()

    return reward


def load_likelihood(name: str, mean: bool, reading: Reading, seed: int) -> ResponseScorer:
    """Load a policy that scores responses by log π(response | prompt), summed over tokens or their `mean`.

    Errors: `ModelError` for a reward model.
    """
    if loading.head_of(name) == "reward":
        raise ModelError(name, "is a reward model: it gives no probabilities", "name a policy")
    model, tokenizer = loading.load(name, "policy", (), seed)
    reading = _fitted(reading, model)
    return ResponseScorer(name, tokenizer, [TokenScorer(model, token_log_probs, _mean if mean else _sum)], reading)


class Encoded(NamedTuple):
    """The tokenized responses of a row."""

    places: list[int]
    responses: list[PairTokens]
    """Prompt and, as `chosen`, the response from its own first token."""


def encoded(records: Sequence[Record], tokenizer: Tokenizer, reading: Reading) -> list[Encoded]:
    """Encode the responses of every record that are neither empty nor too long."""
    stand_ins = [
        # Encoded as training encodes a pair. The response stands on both sides, so its start does not depend on another
        # one.
        Preference(prompt=record.conversation, chosen=response, rejected=response, id=f"{row} {place}")
        for row, record in enumerate(records)
        for place, response in enumerate(record.responses)
        if response.text.strip() or response.extra
    ]
    rows = [Encoded([], []) for _ in records]
    pairs, row_counts, _ = tokenize(stand_ins, tokenizer, reading.max_length or MAX_LENGTH, reading.end)
    for reason, message in row_counts.first.items():
        stand_in, _, problem = message.partition(": ")
        say(f"{reason} {row_counts.dropped[reason]}, the first {records[int(stand_in.split()[0])].id}: {problem}")
    for pair in pairs:
        row, place = map(int, pair.id.split())
        rows[row].places.append(place)
        rows[row].responses.append(pair._replace(id=str(row)))
    return rows


def _groups(responses: Sequence[PairTokens], max_tokens: int) -> Iterator[list[PairTokens]]:
    """Yield groups of responses to one prompt: as many as fit into `max_tokens` and `WIDEST`, or one longer one."""
    group: list[PairTokens] = []
    max_tokens = min(max_tokens, WIDEST)
    for response in responses:
        if group and (response.id != group[0].id or _length([*group, response]) > max_tokens):
            yield group
            group = []
        group.append(response)
    if group:
        yield group


def _length(responses: Sequence[PairTokens]) -> int:
    trunk = _trunk(responses)
    return trunk + sum(len(each.prompt) + len(each.chosen) - trunk for each in responses)


def _trunk(responses: Sequence[PairTokens]) -> int:
    """Count the prompt tokens common to all; at most all but one are shared, so that one remains to predict from."""
    first, *others = (response.prompt for response in responses)
    shared = min(map(len, (first, *others)))
    for other in others:
        differs = np.flatnonzero(first[:shared] != other[:shared])
        shared = int(differs[0]) if len(differs) else shared
    return shared


def _group(responses: Sequence[PairTokens]) -> Group:
    trunk = _trunk(responses)
    rest = tuple(np.concatenate([each.prompt[trunk:], each.chosen]) for each in responses)
    return Group(responses[0].prompt[:trunk], rest)


def tokens_read(responses: Sequence[PairTokens], max_tokens: int) -> int:
    """Count the tokens of the passes in which `TokenScorer.read` scores `responses`: shared prompts once."""
    return sum(map(_length, _groups(responses, max_tokens)))


class TokenScorer:
    """One model, a function of its tokens, and the reduction to one number a response."""

    def __init__(self, model: Any, tokens: TokenFunction, reduce: Reduce, scale: float = 1.0) -> None:
        self._model, self._tokens, self._reduce = model, tokens, reduce
        self.scale = scale
        self.row_format: RowFormat | None = None
        """Row format of the last call."""

    def read(self, responses: Sequence[PairTokens], max_tokens: int) -> list[float]:
        """Return the number of every response (`chosen`), in order; responses with one id are contiguous."""
        self.row_format = row_format_for(self._model, responses, max_tokens)
        groups = list(_groups(responses, max_tokens))
        firsts = np.cumsum([0, *map(len, groups)])
        values = np.empty(len(responses))
        parts = (
            [each for index in part for each in range(firsts[index], firsts[index + 1])]
            for part in self._parts(groups, max_tokens)
        )

        def compute(part: list[int]) -> list[float]:
            return self._pass(list(_groups([responses[index] for index in part], max_tokens)))

        def tokens(part: Sequence[int]) -> int:
            return tokens_read([responses[index] for index in part], max_tokens)

        self._model.eval()
        with torch.inference_mode():
            for part, found in halving.in_passes(parts, compute, tokens, lambda index: responses[index].id, "scoring"):
                values[part] = found
        return [float(value) for value in values]

    def _parts(self, groups: Sequence[Sequence[PairTokens]], max_tokens: int) -> Iterable[list[int]]:
        if self.row_format == "shared":
            return fill([_length(group) for group in groups], max_tokens)
        if self.row_format in ("packed", "single"):
            return fill([sum(each.length - len(each.rejected) for each in group) for group in groups], max_tokens)
        # Padded rows are as wide as the longest response, so each group is a batch of its own.
        return ([index] for index in range(len(groups)))

    def _pass(self, groups: Sequence[Sequence[PairTokens]]) -> list[float]:
        assert self.row_format is not None
        batch = collate_groups([_group(group) for group in groups], self.row_format)
        device = next(self._model.parameters()).device
        by_token = self._tokens(self._model, to_device(batch, device)).double().cpu().numpy()
        columns = np.split(by_token, np.cumsum(batch["lengths"])[:-1])
        responses = (each for group in groups for each in group)
        return [self._reduce(_scored(column, each)) for column, each in zip(columns, responses, strict=True)]


def _scored(values: NDArray[np.float64], response: PairTokens) -> NDArray[np.float64]:
    """Return the values of the scored tokens of a response, which stands at the end of what was read."""
    values = values[-len(response.chosen) :]
    return values if response.chosen_mask is None else values[response.chosen_mask]


def reward_token_scorer(model: Any, scale: float = 1.0) -> TokenScorer:
    """Return the scorer of a reward model: its value at the last token of a response."""
    return TokenScorer(model, response_rewards, _last, scale)


def _last(values: NDArray[np.float64]) -> float:
    return float(values[-1])


def _sum(values: NDArray[np.float64]) -> float:
    return float(values.sum())


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())
