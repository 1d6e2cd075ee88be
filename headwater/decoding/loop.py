"""The decoding loop: prompts in, responses out, each as soon as it is complete.

Rows are independent: the tokens of one depend only on its prompt and its random numbers, up to rounding of logits. A
row that ends is replaced by the next prompt at once. In a round every row gets its next token, or several where the
reference drafts them:

    strategy's turn    policy        reference     both
    models called      policy        reference     reference drafts k tokens, policy checks all k in one pass
    tokens added       1             1             1 to k
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.decoding import cache_check
from headwater.decoding.cached_model import CachedModel
from headwater.decoding.draws import PROPOSE, Shaping, drawn, random_numbers
from headwater.decoding.options import DecodingOptions
from headwater.decoding.speculation import Draft, DraftLength, check
from headwater.decoding.strategies import Strategy, Turn
from headwater.errors import ModelError
from headwater.forward.finite import check_logits

KEPT = 2**26
"""Maximum number of draft logits of each model, kept until they are checked: 256 MiB in float32."""


class DecodeRequest(NamedTuple):
    """A prompt to be answered once."""

    key: str
    """Identifies the prompt in its seeds."""
    draw: int
    prompt: Sequence[int]
    said: Sequence[int] = ()
    """First tokens of the response, already decoded."""


class DecodedTokens(NamedTuple):
    """A response in tokens."""

    request: DecodeRequest
    tokens: list[int]
    """Without the end token."""
    end: int | None
    """The end token; None when the response was cut off."""


@dataclass(eq=False)
class ActiveResponse:
    """A response being decoded."""

    request: DecodeRequest
    ids: list[int]
    u: NDArray[np.float64]
    draft_length: DraftLength
    tokens: list[int] = field(default_factory=list)
    end: int | None = None

    @property
    def prompt(self) -> Sequence[int]:
        """The prompt of the row."""
        return self.request.prompt

    @property
    def tokens_left(self) -> int:
        """Number of tokens that may follow."""
        return int(self.u.shape[1]) - len(self.tokens)


class Loop:
    """Decodes requests with two models and a strategy."""

    def __init__(
        self,
        policy: Any,
        reference: Any,
        strategy: Strategy,
        options: DecodingOptions,
        ends: Sequence[int],
        seed: int,
    ) -> None:
        """Take two models in evaluation mode; `ends` are the tokens that end a response. Errors: `ModelError`."""
        sizes = [model.get_input_embeddings().weight.shape[0] for model in (policy, reference)]
        if len(set(sizes)) > 1:
            raise ModelError("policy and reference", f"have {sizes[0]} and {sizes[1]} embeddings", "expected the same")
        self.policy, self.reference = CachedModel(policy), CachedModel(reference)
        self._strategy, self._options, self._ends, self._seed = strategy, options, frozenset(ends), seed
        self._shaping, self._vocabulary = Shaping(options), sizes[0]
        self.drafted = self.taken = 0

    @torch.inference_mode()
    def run(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedTokens]:
        """Yield responses as they are completed; requests of similar length should follow each other."""
        asked = list(requests)
        longest = max((len(one.prompt) for one in asked), default=0) + self._options.max_new_tokens
        for reader in (self.policy, self.reference):
            cache_check.settle(reader, longest)
        waiting = (self._row(request) for request in asked)
        active: list[ActiveResponse] = []
        while True:
            active += islice(waiting, self._options.batch_size - len(active))
            if not active:
                return
            self._round(active)
            yield from (DecodedTokens(row.request, row.tokens, row.end) for row in active if self._is_done(row))
            active = [row for row in active if not self._is_done(row)]

    def _row(self, request: DecodeRequest) -> ActiveResponse:
        u = random_numbers(self._seed, request.key, request.draw, self._options.max_new_tokens)
        said = list(request.said)
        ids = [*(int(token) for token in request.prompt), *said]
        return ActiveResponse(request, ids, u, DraftLength(self._options.draft), said)

    def _is_done(self, row: ActiveResponse) -> bool:
        return row.end is not None or not row.tokens_left

    def _round(self, rows: Sequence[ActiveResponse]) -> None:
        """Give every row at least one token."""
        turns = {row: self._strategy.turn(len(row.tokens)) for row in rows}
        sizes = self._sizes(turns)
        drafts, said = self._draft([row for row in rows if turns[row] != "policy"], sizes)
        asked = [row for row in rows if turns[row] != "reference"]
        opinions = dict(zip(asked, self._read(self.policy, asked, [sizes[row] for row in asked]), strict=True))
        # The reference appended its drafts to the rows; from here on the rows hold only accepted tokens again.
        for row in rows:
            del row.ids[len(row.request.prompt) + len(row.tokens) :]
        alone = [row for row in asked if turns[row] == "policy"]
        for row, token in zip(alone, self._drawn(alone, [opinions[row] for row in alone], 0), strict=True):
            self._append(row, [token])
        together = {
            row: Draft(drafts[row], self._numbers(row, sizes[row]), said[row], opinions[row])
            for row in asked
            if turns[row] == "both"
        }
        self._check(together)
        for row in rows:
            if turns[row] == "reference":
                self._append(row, drafts[row])

    def _sizes(self, turns: Mapping[ActiveResponse, Turn]) -> dict[ActiveResponse, int]:
        """Return how many tokens every row may get: drafts are made only where the policy has to check them."""
        # All rows that the reference reads are continued together, and none beyond its last position.
        draft_lengths = [row.draft_length.length for row, turn in turns.items() if turn == "both"] or [1]
        most = max(1, KEPT // (self._vocabulary * len(turns)))
        longest = min(round(sum(draft_lengths) / len(draft_lengths)), most, *(row.tokens_left for row in turns))
        return {row: self._run_length(row, longest) if turn == "both" else 1 for row, turn in turns.items()}

    def _run_length(self, row: ActiveResponse, longest: int) -> int:
        """Return how many of a row's next tokens need both models, up to `longest`."""
        ahead = (step for step in range(1, longest) if self._strategy.turn(len(row.tokens) + step) != "both")
        return next(ahead, longest)

    def _draft(
        self, rows: Sequence[ActiveResponse], sizes: Mapping[ActiveResponse, int]
    ) -> tuple[dict[ActiveResponse, list[int]], dict[ActiveResponse, torch.Tensor]]:
        """Let the reference draft the next tokens; return them with its logits, and leave all but one in the rows."""
        drafts: dict[ActiveResponse, list[int]] = {row: [] for row in rows}
        said: dict[ActiveResponse, list[torch.Tensor]] = {row: [] for row in rows}
        longest = max((sizes[row] for row in rows), default=0)
        for step in range(longest):
            # All rows are continued to the end: one that was left out would leave the cache and be read again.
            found = self._read(self.reference, rows, [1] * len(rows))
            for row, logits, token in zip(rows, found, self._drawn(rows, found, step), strict=True):
                drafts[row].append(token)
                said[row].append(logits)
                row.ids.append(token)
        for row in rows:
            del row.ids[len(row.request.prompt) + len(row.tokens) + sizes[row] - 1 :]
        return (
            {row: drafts[row][: sizes[row]] for row in rows},
            {row: torch.cat(said[row][: sizes[row]]) for row in rows},
        )

    def _read(self, reader: CachedModel, rows: Sequence[ActiveResponse], last: Sequence[int]) -> list[torch.Tensor]:
        """Return a model's logits (`CachedModel.read`). Errors: `NumericalError` for logits that are not finite."""
        found = reader.read(rows, last)
        if rows:
            who = "policy" if reader is self.policy else "reference"
            check_logits(found, [f"prompt {row.request.key}" for row in rows], f"logits of the {who}")
        return found

    def _drawn(self, rows: Sequence[ActiveResponse], logits: Sequence[torch.Tensor], step: int) -> list[int]:
        """Draw the token `step` places ahead in every row, from one model's logits [1, vocabulary] each."""
        if not rows:
            return []
        probabilities = self._shaping(torch.cat(list(logits)))
        u = [row.u[PROPOSE, len(row.tokens) + step] for row in rows]
        found: list[int] = drawn(probabilities, torch.tensor(u, device=probabilities.device)).tolist()
        return found

    def _numbers(self, row: ActiveResponse, size: int) -> torch.Tensor:
        return torch.from_numpy(row.u[:, len(row.tokens) : len(row.tokens) + size])

    def _check(self, drafts: Mapping[ActiveResponse, Draft]) -> None:
        """Let the policy check drafts, and append the accepted tokens to every row."""
        if not drafts:
            return
        found = check(list(drafts.values()), self._strategy, self._shaping)
        for (row, draft), (tokens, kept) in zip(drafts.items(), found, strict=True):
            row.draft_length.learn(len(draft.tokens), kept)
            self.drafted += len(draft.tokens)
            self.taken += kept
            self._append(row, tokens)

    def _append(self, row: ActiveResponse, tokens: Sequence[int]) -> None:
        """Append tokens to a row, up to the first end token."""
        for token in tokens:
            if token in self._ends:
                row.end = token
                return
            row.tokens.append(token)
            row.ids.append(token)


def decode_requests(keys: Sequence[str], prompts: Sequence[Sequence[int]], n: int) -> list[DecodeRequest]:
    """Return n requests a prompt, sorted by length."""
    found = [DecodeRequest(key, draw, ids) for key, ids in zip(keys, prompts, strict=True) for draw in range(n)]
    return sorted(found, key=lambda request: len(request.prompt))
