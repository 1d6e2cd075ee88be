"""The start-up check: which layouts of rows give every token of a response the value that it has alone.

An architecture may look at more of a row than its tokens should see (alibi, a state, a mask of its own, a rotary
embedding that depends on the longest text), and would be silently wrong in rows that texts share. Every path that reads
a model therefore asks `row_format_for`, which reads a sample in each format, the tightest first, and compares it token
by token with forwards of one response each, without padding. What passes in no shared row is read one response
at a time.

The sample is made here, from random token ids, because data may lack what must be tested: pairs whose sides differ,
sides that begin alike, several lengths beside one another, texts as long as the longest that will come, and a row as
long as rows will be. A few pairs of the data go with it.

Tolerances are those of rounding. In float32 two orders of summation moved a log-probability by 3e-6 at most, of 200
architectures with two layers and large weights (docs/architectures.md); 1e-5 of its size, or of the spread of rewards,
is allowed. Rounding grows with depth: where the limit is exceeded, the same rows are read again with input embeddings
that are changed in their last bit, and ten times what that changes is allowed. A wrong mask is off by a thousand times
as much. Under autocast, errors against float32 are compared with those of plain forwards under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.console import say
from headwater.data.tokens import TOKENS_PER_PASS, PairTokens
from headwater.errors import ModelError, first_line
from headwater.forward.attention import TREES, attend_with, is_encoder
from headwater.forward.check_sample import Sample, limits_of, longest_of
from headwater.forward.hidden_states import base_of, text_logits
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import (
    TokenFunction,
    one_label,
    response_rewards,
    to_device,
    token_log_probs,
    token_rewards,
)

LAYOUTS: tuple[RowFormat, ...] = ("shared", "packed", "padded", "single")
"""All layouts, the one with the fewest tokens first."""
ROWS_OF_ONE: tuple[RowFormat, ...] = ("padded", "single")
"""Those in which the model attends by itself, as it does in generation."""
ROUNDING = 1e-5
"""Relative error that float32 is allowed."""
TIMES = 10.0
"""How much more than a change of the last bit of the input embeddings rounding may move a value."""
TIMES_HALF = 2.0
"""How much larger the mean error of a layout under autocast may be than that of plain forwards."""
SEEN = 10.0
"""The first token of a prompt must change a value by so many times what rounding may."""
REFUSALS = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, NotImplementedError)
"""Architectures refuse what they do not know each in their own way."""


@dataclass
class Checked:
    """What is known of a model's layouts; it stays with the model."""

    attention: str
    """The implementation that the model came with."""
    longest: int = 0
    """Tokens of the longest response with its prompt that was tried."""
    row: int = 0
    """Tokens of the longest row that was tried."""
    problems: dict[tuple[RowFormat, bool], str] = field(default_factory=dict)
    """What is wrong with a layout, in float32 or under autocast; empty where nothing is."""
    cached: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of each way to go on from a cache: up to how many tokens it was tried, and what is wrong with it."""
    said: set[str] = field(default_factory=set)


def row_format_for(
    model: Any,
    pairs: Sequence[PairTokens],
    max_tokens: int = TOKENS_PER_PASS,
    *,
    allowed: Sequence[RowFormat] = LAYOUTS,
    longest: int = 0,
    bf16: bool = False,
) -> RowFormat:
    """Return the tightest of the `allowed` layouts in which `model` gives the values of separate forwards.

    Sets the model's attention to it, and says in one line when rows cannot be shared. `max_tokens` is the number of
    tokens of a pass, `longest` that of the longest response with its prompt where one longer than those of
    `pairs` can come, `bf16` whether the model will be read under autocast. What was found is kept on the model, and is
    looked for again only when much longer texts come. Errors: `ModelError` for a model that cannot be read at all, or
    whose values depend on texts that were read before.
    """
    return common_row_format([model], pairs, max_tokens, allowed=allowed, longest=longest, bf16=bf16)


def common_row_format(
    models: Sequence[Any],
    pairs: Sequence[PairTokens],
    max_tokens: int = TOKENS_PER_PASS,
    *,
    allowed: Sequence[RowFormat] = LAYOUTS,
    longest: int = 0,
    bf16: bool = False,
) -> RowFormat:
    """Return the tightest layout that `row_format_for` would allow for each of several models, and set them to it."""
    longest = max(longest, longest_of(pairs))
    checks = [_Check(model, pairs, max_tokens, longest, bf16) for model in models]
    row_format = next(row_format for row_format in allowed if all(not check.problem(row_format) for check in checks))
    for check in checks:
        check.settle(row_format, allowed)
    return row_format


def checked(model: Any) -> Checked:
    """Return what is known of a model's layouts."""
    base = base_of(model)
    attention = base.config._attn_implementation
    if attention.startswith(TREES):  # set before anybody asked: what transformers would have taken
        attention = "sdpa" if base._supports_sdpa else "eager"
    # In its __dict__: it goes with copies of the model, and not into its files.
    found = vars(base).setdefault("_headwater_checked", Checked(attention))
    assert isinstance(found, Checked)
    return found


def attend_as_it_came(model: Any) -> None:
    """Let a model attend by itself again, as generation needs it."""
    attend_with(model, checked(model).attention)


class _Check:
    """One model, compared on a sample that is made when it is needed."""

    def __init__(self, model: Any, pairs: Sequence[PairTokens], max_tokens: int, longest: int, bf16: bool) -> None:
        self._model, self._pairs, self._max_tokens, self._bf16 = model, pairs, max_tokens, bf16
        self._name = type(base_of(model)).__name__
        self._encoder = is_encoder(model)
        self._found = checked(model)
        self._comparison: _Comparison | None = None
        limits = limits_of(base_of(model).config)
        row = Sample.row_tokens(pairs, max_tokens, limits)
        if reached(self._found.longest, longest, limits) or reached(self._found.row, row, limits):
            self._found.problems.clear()
            self._found.longest = max(longest, self._found.longest)
            self._found.row = max(row, self._found.row)

    def problem(self, row_format: RowFormat) -> str:
        """Say what is wrong with a layout; empty where nothing is."""
        for bf16 in (False, True)[: 1 + self._bf16]:
            if (row_format, bf16) not in self._found.problems:
                self._found.problems[row_format, bf16] = self._tried(row_format, bf16)
            if self._found.problems[row_format, bf16]:
                return self._found.problems[row_format, bf16]
        return ""

    def _tried(self, row_format: RowFormat, bf16: bool) -> str:
        if self._encoder and row_format in ("shared", "packed"):
            return "an encoder, whose tokens see all of their row"
        with _evaluating(self._model), torch.no_grad():
            if self._comparison is None:
                sample = Sample.of(self._model, self._pairs, self._found.longest, self._found.row)
                self._comparison = _Comparison(self._model, sample)
            return self._comparison.problem(row_format, bf16)

    def settle(self, row_format: RowFormat, allowed: Sequence[RowFormat]) -> None:
        """Set the model to a layout, and say so where it is not the tightest."""
        current = base_of(self._model).config._attn_implementation
        if row_format in ROWS_OF_ONE:
            attend_with(self._model, self._found.attention)
        elif not current.startswith(TREES):  # a compiled form of it stays
            attend_with(self._model, TREES)
        reasons = [
            f"{each} rows: {problem}"
            for each in allowed[: allowed.index(row_format)]
            if (problem := next(filter(None, (self._found.problems.get((each, half)) for half in (False, True))), ""))
        ]
        if self._encoder and row_format == "padded":
            reasons = ["an encoder, whose tokens see all of their row"]
        how = "is read one response at a time" if row_format == "single" else f"gets {row_format} rows"
        line = f"attention: {self._name} {how}, slower ({'; '.join(reasons)})"
        if reasons and line not in self._found.said:
            self._found.said.add(line)
            say(line)


def reached(before: int, now: int, limits: Sequence[int]) -> bool:
    """Say whether lengths up to `now` may bring out what those up to `before` did not.

    Something new can begin at a length that the configuration names; apart from that, twice the length is tried.
    """
    return now > before and (now >= 2 * before or any(before <= limit < now for limit in limits))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode for a while, and its attention back."""
    attention, training = base_of(model).config._attn_implementation, model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        attend_with(model, attention)


def reader_of(model: Any) -> TokenFunction:
    """Return what the check compares: log-probabilities, rewards at every token, or an encoder's rewards of rows."""
    if is_encoder(model):
        return response_rewards
    return token_rewards if _is_reward_model(model) else token_log_probs


def _is_reward_model(model: Any) -> bool:
    return isinstance(getattr(model, "score", None), torch.nn.Module)


class _Comparison:
    """The values of a sample's responses alone, and how others differ from them."""

    def __init__(self, model: Any, sample: Sample) -> None:
        self._model, self._sample, self._read = model, sample, reader_of(model)
        self._name, self._device = type(base_of(model)).__name__, next(model.parameters()).device
        self._what = "log-probabilities" if self._read is token_log_probs else "rewards"
        self._alone = self._each_alone(sample.pairs)
        self._noise: float | None = None
        if self._read is not response_rewards:
            self._check_head()
        self._check_memory()
        self._blind = self._read is not response_rewards and not self._sees_context()

    def _values(self, pairs: Sequence[PairTokens], row_format: RowFormat, bf16: bool = False) -> torch.Tensor:
        """Read pairs in one pass: the values of their tokens, [N] in float64."""
        batch = to_device(collate(pairs, row_format), self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            return self._read(self._model, batch).double().cpu()

    def _each_alone(self, pairs: Sequence[PairTokens], bf16: bool = False) -> list[torch.Tensor]:
        attend_with(self._model, checked(self._model).attention)
        try:
            return [self._values([pair], "single", bf16) for pair in pairs]
        except REFUSALS as error:
            problem = f"cannot read a text by itself: {type(error).__name__}: {first_line(error)}"
            raise ModelError(self._name, problem, "use another model") from error

    def problem(self, row_format: RowFormat, bf16: bool) -> str:
        """Describe how the values of rows in `row_format` differ from those alone; empty when they agree."""
        if row_format == "single":
            return ""
        if self._blind:
            return "its values do not depend on the text before them, so that nothing can be compared"
        order = self._sample.order(row_format)
        pairs, expected = [self._sample.pairs[i] for i in order], torch.cat([self._alone[i] for i in order])
        try:
            attend_with(self._model, TREES if row_format in ("shared", "packed") else checked(self._model).attention)
            found = self._values(pairs, row_format, bf16)
            return self._half(found, expected) if bf16 else self._differs(found, expected)
        except REFUSALS as error:
            return f"{type(error).__name__}: {first_line(error)[:120]}" if str(error) else type(error).__name__
        finally:
            attend_with(self._model, checked(self._model).attention)

    def _differs(self, found: torch.Tensor, expected: torch.Tensor) -> str:
        scale = expected.abs().clamp(min=1) if self._what == "log-probabilities" else self._spread()
        return difference(found, expected, scale, self._rounding, self._what)

    def _half(self, found: torch.Tensor, expected: torch.Tensor) -> str:
        """Compare errors under autocast with those of plain forwards under autocast."""
        plain = distance(torch.cat(self._each_alone(self._sample.pairs, bf16=True)), torch.cat(self._alone))
        own, off = plain.square().mean().sqrt(), distance(found, expected).square().mean().sqrt()
        limit = max(TIMES_HALF * float(own), ROUNDING)
        return "" if float(off) <= limit else f"{self._what} in bf16 are off by {off:.2g}, alone by {own:.2g}"

    def _spread(self) -> torch.Tensor:
        return torch.cat(self._alone).std(correction=0)

    def _rounding(self) -> float:
        """Return how far values move when the last bit of the input embeddings changes."""
        if self._noise is None:
            with last_bits_changed(self._model):
                moved = torch.cat(self._each_alone(self._sample.pairs))
            self._noise = float(distance(moved, torch.cat(self._alone)).max())
        return self._noise

    def _check_head(self) -> None:
        """Compare with the model's own forward, head included. Errors: `ModelError` where it does something else."""
        own, ours = [], []
        for pair, values in zip(self._sample.short, self._alone, strict=False):
            sides = torch.split(values, [len(pair.chosen), len(pair.rejected)])
            for response, side in zip((pair.chosen, pair.rejected), sides, strict=True):
                own.append(self._own_values(pair.prompt, response))
                ours.append(side[-len(own[-1]) :])
        difference = self._differs(torch.cat(ours), torch.cat(own))
        if difference:
            problem = f"has a head that headwater cannot compute: {difference} from those of its own forward"
            raise ModelError(self._name, problem, "use another model")

    def _own_values(self, prompt: NDArray[np.int32], response: NDArray[np.int32]) -> torch.Tensor:
        """Return the log-probabilities of a response, or its one reward, by the model's own forward."""
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64)).to(self._device)
        if self._read is token_log_probs:
            log_probs = text_logits(self._model, ids.tolist())[len(prompt) - 1 : -1].double().log_softmax(-1)
            return log_probs.gather(1, ids[len(prompt) :, None])[:, 0].cpu()
        logits = self._model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).logits
        return one_label(self._model, logits).double().cpu()

    def _check_memory(self) -> None:
        """Read again, behind longer texts, what was read first. Errors: `ModelError` where that changed its values."""
        for place in self._sample.again:
            pair, values = self._sample.pairs[place], self._alone[place]
            # Its other side first, which was read behind this one before.
            turned = self._each_alone([pair._replace(chosen=pair.rejected, rejected=pair.chosen)])[0]
            difference = self._differs(turned.roll(len(pair.chosen)), values)
            if difference:
                problem = f"remembers texts that it read before: {difference}"
                raise ModelError(self._name, problem, "use another model")

    def _sees_context(self) -> bool:
        """Say whether the first token of a prompt shows in the values of responses, by far more than rounding."""
        places = [place for place, pair in enumerate(self._sample.short) if len(pair.prompt) > 1]
        moved = self._each_alone([self._sample.with_other_beginning(self._sample.pairs[place]) for place in places])
        off = max(float(distance(a, self._alone[place]).max()) for a, place in zip(moved, places, strict=True))
        scale = 1.0 if self._what == "log-probabilities" else float(self._spread())
        return off > SEEN * ROUNDING * scale


def difference(
    found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor, rounding: Callable[[], float], what: str
) -> str:
    """Describe how far values are from those expected; empty where rounding explains it.

    `scale` is what float32 may be off relative to; `rounding` tells how far values move with the last bit of the input,
    and is asked only where that is exceeded.
    """
    off = distance(found, expected)
    if bool((off <= ROUNDING * scale).all()) or bool((off <= TIMES * rounding()).all()):
        return ""
    return f"{what} differ by {off.max():.2g}"


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return |a − b|: 0 where neither is finite, infinite where one is."""
    broken = ~a.isfinite(), ~b.isfinite()
    off = torch.where(broken[0] | broken[1], torch.inf, (a - b).abs())
    return torch.where(broken[0] & broken[1], 0.0, off)


@contextmanager
def last_bits_changed(model: Any) -> Iterator[None]:
    """Change the last bit of what comes out of the input embeddings."""
    generator = torch.Generator().manual_seed(0)

    def change(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        sign = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        return output * (1 + torch.finfo(output.dtype).eps * sign)

    try:
        hook = base_of(model).get_input_embeddings().register_forward_hook(change)
    except NotImplementedError:  # no table of embeddings (CANINE): rounding is not told, and the limit stands
        yield
        return
    try:
        yield
    finally:
        hook.remove()
