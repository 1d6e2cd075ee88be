"""The start-up check: which row formats give every response token the value of a separate forward pass.

An architecture may use more of a row than its tokens should see (ALiBi, a recurrent state, a mask of its own, a rotary
embedding that depends on the longest text) and would give wrong values in packed rows without an error. Every path that
reads a model therefore calls `row_format_for`. It reads a sample in each format, the one with the fewest tokens first,
and compares it token by token with forward passes of one response each, without padding. A model that passes in no
shared format is read one response at a time.

The sample is made here from random token ids, because data may lack what must be tested: pairs whose sides differ in
length, sides with a common prefix, texts as long as the longest that will come, and a row as long as rows will be. A
few pairs of the data are added.

Tolerances are those of rounding. In float32 two orders of summation moved a log-probability by 3e-6 at most, over 200
architectures with two layers and large weights (docs/architectures.md); 1e-5 of its size, or of the spread of rewards,
is allowed. Rounding grows with depth: where the limit is exceeded, the same rows are read again with input embeddings
changed in their last bit, and ten times the effect of that change is allowed. A wrong mask is off by a thousand times
as much. Under autocast, errors against float32 are compared with those of plain forward passes under autocast.
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
from headwater.forward.attention import TREES, attend_with
from headwater.forward.check_sample import Sample, limits_of, longest_of
from headwater.forward.hidden_states import CHECKED, text_logits
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import POLICY, kind_of, one_label, to_device
from headwater.models.loading import VOCABULARY
from headwater.models.parts import base_of

ROW_FORMATS: tuple[RowFormat, ...] = ("shared", "packed", "padded", "single")
"""All row formats, the one with the fewest tokens first."""
ROWS_OF_ONE: tuple[RowFormat, ...] = ("padded", "single")
"""Formats with one response a row, in which the model uses its own attention, as in generation."""
ROUNDING = 1e-5
"""Relative error allowed in float32."""
TIMES = 10.0
"""Allowed multiple of the effect of changing the last bit of the input embeddings."""
TIMES_HALF = 2.0
"""Allowed ratio of the root-mean-square errors of a format and of plain forward passes, both under autocast."""
SEEN = 10.0
"""Changing the first token of a prompt must move a value by this multiple of the rounding error."""
REFUSALS = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, NotImplementedError)
"""Exceptions by which architectures signal unsupported input."""


@dataclass
class Checked:
    """Results of the check for one model; stored on the model."""

    attention: str
    """Attention implementation that the model was loaded with."""
    longest: int = 0
    """Tokens of the longest tested response with its prompt."""
    row: int = 0
    """Tokens of the longest tested row."""
    problems: dict[tuple[RowFormat, bool], str] = field(default_factory=dict)
    """Problem of a row format, by format and by autocast to bf16; empty where there is none."""
    cached: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Per way of continuing from a cache: number of tokens tested, and the problem found."""
    said: set[str] = field(default_factory=set)


def row_format_for(
    model: Any,
    pairs: Sequence[PairTokens],
    max_tokens: int = TOKENS_PER_PASS,
    *,
    allowed: Sequence[RowFormat] = ROW_FORMATS,
    longest: int = 0,
    bf16: bool = False,
) -> RowFormat:
    """Return the `allowed` row format with the fewest tokens in which `model` agrees with separate forward passes.

    The model's attention is set accordingly, and one line is printed when rows cannot be shared. `max_tokens` is the
    number of tokens of a pass; `longest` is that of the longest response with its prompt, where longer ones than those
    of `pairs` may come; `bf16` says whether the model will be read under autocast. Results are stored on the model and
    computed again only when much longer texts come. Errors: `ModelError` for a model that cannot be read at all, or
    whose values depend on texts that were read before, or with another vocabulary than that of `pairs`.
    """
    return common_row_format([model], pairs, max_tokens, allowed=allowed, longest=longest, bf16=bf16)


def common_row_format(
    models: Sequence[Any],
    pairs: Sequence[PairTokens],
    max_tokens: int = TOKENS_PER_PASS,
    *,
    allowed: Sequence[RowFormat] = ROW_FORMATS,
    longest: int = 0,
    bf16: bool = False,
) -> RowFormat:
    """Return the first row format that `row_format_for` allows for all of several models, and set their attention."""
    for model in models:
        _check_vocabulary(model, pairs)
    longest = max(longest, longest_of(pairs))
    checks = [_Check(model, pairs, max_tokens, longest, bf16) for model in models]
    row_format = next(row_format for row_format in allowed if all(not check.problem(row_format) for check in checks))
    for check in checks:
        check.settle(row_format, allowed)
    return row_format


def _check_vocabulary(model: Any, pairs: Sequence[PairTokens]) -> None:
    """Refuse rows of another tokenizer than the model's, and tokens without an embedding. Errors: `ModelError`."""
    own = vars(base_of(model)).get(VOCABULARY)
    if own and any(pair.vocabulary not in ("", own) for pair in pairs):
        problem = "has another vocabulary than the tokenizer that encoded the rows"
        raise ModelError(type(base_of(model)).__name__, problem, "encode the rows with the tokenizer of this model")
    parts = (part for pair in pairs for part in (pair.prompt, pair.chosen, pair.rejected) if len(part))
    largest = max((int(part.max()) for part in parts), default=0)
    try:
        known = base_of(model).get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):  # no table of embeddings (CANINE)
        return
    if largest >= known:
        problem = f"has {known:,} tokens, and the rows hold the token {largest:,}"
        raise ModelError(type(base_of(model)).__name__, problem, "encode the rows with the tokenizer of this model")


def checked(model: Any) -> Checked:
    """Return the stored results of the check for a model."""
    base = base_of(model)
    attention = base.config._attn_implementation
    if attention.startswith(TREES):  # set before anybody asked: what transformers would have taken
        attention = "sdpa" if base._supports_sdpa else "eager"
    # Stored in its __dict__: copies of the model keep it, and saved files do not.
    found = vars(base).setdefault(CHECKED, Checked(attention))
    assert isinstance(found, Checked)
    return found


def attend_as_it_came(model: Any) -> None:
    """Restore the model's own attention, which generation needs."""
    attend_with(model, checked(model).attention)


class _Check:
    """The check of one model; the comparison is built when a format is first tested."""

    def __init__(self, model: Any, pairs: Sequence[PairTokens], max_tokens: int, longest: int, bf16: bool) -> None:
        self._model, self._pairs, self._max_tokens, self._bf16 = model, pairs, max_tokens, bf16
        self._name = type(base_of(model)).__name__
        self._kind = kind_of(model)
        self._found = checked(model)
        self._comparison: _Comparison | None = None
        limits = limits_of(base_of(model).config)
        row = Sample.row_tokens(pairs, max_tokens, limits)
        if reached(self._found.longest, longest, limits) or reached(self._found.row, row, limits):
            self._found.problems.clear()
            self._found.longest = max(longest, self._found.longest)
            self._found.row = max(row, self._found.row)

    def problem(self, row_format: RowFormat) -> str:
        """Return the problem of a row format; empty where there is none."""
        for bf16 in (False, True)[: 1 + self._bf16]:
            if (row_format, bf16) not in self._found.problems:
                self._found.problems[row_format, bf16] = self._tried(row_format, bf16)
            if self._found.problems[row_format, bf16]:
                return self._found.problems[row_format, bf16]
        return ""

    def _tried(self, row_format: RowFormat, bf16: bool) -> str:
        if not self._kind.causal and row_format in ("shared", "packed"):
            return "an encoder, whose tokens see all of their row"
        with _evaluating(self._model), torch.no_grad():
            if self._comparison is None:
                sample = Sample.of(self._model, self._pairs, self._found.longest, self._found.row)
                self._comparison = _Comparison(self._model, sample)
            return self._comparison.problem(row_format, bf16)

    def settle(self, row_format: RowFormat, allowed: Sequence[RowFormat]) -> None:
        """Set the model to a row format, and print the reason where it is not the first of the allowed ones."""
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
        if not self._kind.causal and row_format == "padded":
            reasons = ["an encoder, whose tokens see all of their row"]
        how = "is read one response at a time" if row_format == "single" else f"gets {row_format} rows"
        line = f"attention: {self._name} {how}, slower ({'; '.join(reasons)})"
        if reasons and line not in self._found.said:
            self._found.said.add(line)
            say(line)


def reached(before: int, now: int, limits: Sequence[int]) -> bool:
    """Return whether lengths up to `now` need a test that those up to `before` did not give.

    Behaviour may change at a length named in the configuration; apart from that, a test covers twice its length.
    """
    return now > before and (now >= 2 * before or any(before <= limit < now for limit in limits))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch a model to evaluation mode, and restore its mode and attention afterwards."""
    attention, training = base_of(model).config._attn_implementation, model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        attend_with(model, attention)


class _Comparison:
    """Values of a sample's responses from separate forward passes, and comparisons with other formats."""

    def __init__(self, model: Any, sample: Sample) -> None:
        self._model, self._sample, self._kind = model, sample, kind_of(model)
        self._name, self._device = type(base_of(model)).__name__, next(model.parameters()).device
        self._alone = self._each_alone(sample.pairs)
        self._noise: float | None = None
        if self._kind.causal:
            self._check_head()
        self._check_memory()
        self._blind = self._kind.causal and not self._sees_context()

    def _values(self, pairs: Sequence[PairTokens], row_format: RowFormat, bf16: bool = False) -> torch.Tensor:
        """Return the values of the response tokens of pairs read in one pass, [N] in float64."""
        batch = to_device(collate(pairs, row_format), self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            return self._kind.token_values(self._model, batch).double().cpu()

    def _each_alone(self, pairs: Sequence[PairTokens], bf16: bool = False) -> list[torch.Tensor]:
        attend_with(self._model, checked(self._model).attention)
        try:
            return [self._values([pair], "single", bf16) for pair in pairs]
        except REFUSALS as error:
            problem = f"cannot read a text by itself: {type(error).__name__}: {first_line(error)}"
            raise ModelError(self._name, problem, "use another model") from error

    def problem(self, row_format: RowFormat, bf16: bool) -> str:
        """Describe how values of rows in `row_format` differ from those of separate passes; empty when they agree."""
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
        scale = expected.abs().clamp(min=1) if self._kind is POLICY else self._spread()
        return difference(found, expected, scale, self._rounding, self._kind.values)

    def _half(self, found: torch.Tensor, expected: torch.Tensor) -> str:
        """Compare errors under autocast with those of plain forwards under autocast."""
        plain = distance(torch.cat(self._each_alone(self._sample.pairs, bf16=True)), torch.cat(self._alone))
        own, off = plain.square().mean().sqrt(), distance(found, expected).square().mean().sqrt()
        limit = max(TIMES_HALF * float(own), ROUNDING)
        return "" if float(off) <= limit else f"{self._kind.values} in bf16 are off by {off:.2g}, alone by {own:.2g}"

    def _spread(self) -> torch.Tensor:
        return torch.cat(self._alone).std(correction=0)

    def _rounding(self) -> float:
        """Return the largest change of a value when the last bit of the input embeddings changes."""
        if self._noise is None:
            with last_bits_changed(self._model):
                moved = torch.cat(self._each_alone(self._sample.pairs))
            self._noise = float(distance(moved, torch.cat(self._alone)).max())
        return self._noise

    def _check_head(self) -> None:
        """Compare with the model's own forward, head included. Errors: `ModelError` where the two differ."""
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
        """Return the log-probabilities of a response, or its reward, by the model's own forward."""
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64)).to(self._device)
        if self._kind is POLICY:
            log_probs = text_logits(self._model, ids.tolist())[len(prompt) - 1 : -1].double().log_softmax(-1)
            return log_probs.gather(1, ids[len(prompt) :, None])[:, 0].cpu()
        logits = self._model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).logits
        return one_label(self._model, logits).double().cpu()

    def _check_memory(self) -> None:
        """Read the first pairs again after longer texts. Errors: `ModelError` where their values have changed."""
        for place in self._sample.again:
            pair, values = self._sample.pairs[place], self._alone[place]
            # The sides are swapped, so that each is now read after a different text than before.
            turned = self._each_alone([pair._replace(chosen=pair.rejected, rejected=pair.chosen)])[0]
            difference = self._differs(turned.roll(len(pair.chosen)), values)
            if difference:
                problem = f"remembers texts that it read before: {difference}"
                raise ModelError(self._name, problem, "use another model")

    def _sees_context(self) -> bool:
        """Return whether the first token of a prompt changes the values of responses by far more than rounding."""
        places = [place for place, pair in enumerate(self._sample.short) if len(pair.prompt) > 1]
        moved = self._each_alone([self._sample.with_other_beginning(self._sample.pairs[place]) for place in places])
        off = max(float(distance(a, self._alone[place]).max()) for a, place in zip(moved, places, strict=True))
        scale = 1.0 if self._kind is POLICY else float(self._spread())
        return off > SEEN * ROUNDING * scale


def difference(
    found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor, rounding: Callable[[], float], what: str
) -> str:
    """Describe how far values are from the expected ones; empty where rounding explains it.

    The allowed error in float32 is relative to `scale`. `rounding` returns the effect of a changed last bit of the
    input, and is called only where that error is exceeded.
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
    """Flip the last bit of the output of the input embeddings, by a random sign."""
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
