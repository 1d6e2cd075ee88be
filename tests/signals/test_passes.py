"""What one pass says of a prefix is what a pass over the cut response says, and all of it is the full score."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens, closing_tokens, tokenize
from headwater.data.truncation import CutBy, Keep, Part, Truncation
from headwater.data.turns import EndToken, turn_end
from headwater.forward.passes import TokenValues, token_values
from headwater.forward.scores import TokenFunction, token_log_probs, token_rewards
from headwater.models import loading
from headwater.signals.passes import reward_prefix_model
from headwater.signals.prefix_scorers import TokenRewards, implicit_reward_prefix_scorer, kept_of, reward_prefix_scorer

BETA = 0.1
PARTS: tuple[Part, ...] = ("suffix", "middle", "random-span")


def pairs_of(corpus: list[Preference], tokenizer: Tokenizer, end: EndToken = "never") -> list[PairTokens]:
    return tokenize(corpus[:9], tokenizer, 512, end).pairs


def model(head: loading.Head, corpus: list[Preference], seed: int = 0) -> Any:
    return loading.load("scratch(hidden=32, layers=2, vocab=512)", head, corpus, seed).model


def read(what: TokenFunction, each: Any, pairs: list[PairTokens]) -> list[TokenValues]:
    return token_values(each, what, pairs, 4096, "padded", "test")


def cut(pairs: list[PairTokens], truncation: Truncation) -> list[PairTokens]:
    """Cut the token ids themselves."""
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    kept = kept_of(truncation, lengths).tolist()
    return [p._replace(chosen=p.chosen[:c], rejected=p.rejected[:r]) for p, (c, r) in zip(pairs, kept, strict=True)]


def margins(prefix_scorer: TokenRewards, truncation: Truncation) -> np.ndarray:
    return prefix_scorer.margins(truncation, np.ones(len(prefix_scorer.lengths)))


@pytest.mark.parametrize("by", ["own", "equal", "shared"])
@pytest.mark.parametrize("ratio", ["0.1", "0.5", "0.9"])
def test_one_pass_of_a_reward_model_is_many(
    corpus: list[Preference], tokenizer: Tokenizer, ratio: str, by: CutBy
) -> None:
    each, pairs = model("reward", corpus), pairs_of(corpus, tokenizer)
    truncation = Truncation(Keep(Fraction(ratio)), by)
    prefix_scorer = reward_prefix_scorer(pairs, read(token_rewards, each, pairs), closing_tokens(tokenizer, "complete"))
    apart = read(token_rewards, each, cut(pairs, truncation))
    expected = [float(value.chosen[-1] - value.rejected[-1]) for value in apart]
    np.testing.assert_allclose(margins(prefix_scorer, truncation), expected, atol=1e-5)
    assert np.std(expected) > 1e-3  # random weights tell these responses apart


@pytest.mark.parametrize("end", ["complete", "never"])
def test_a_reward_model_reads_a_span_as_a_response_of_its_own(
    corpus: list[Preference], end: EndToken, capsys: pytest.CaptureFixture[str]
) -> None:
    name, few = "scratch(hidden=32, layers=2, vocab=512)", corpus[:9]
    spans = [Truncation(Keep(Fraction(1, n)), part=part) for n in (5, 2) for part in PARTS]
    scorer = reward_prefix_model(*loading.load(name, "reward", few, 0), EncodeOptions(Truncation(), end, 512), 700)
    pairs = prepare("test", few, scorer.encode_options, scorer.tokenizer, PrepLog())
    prefix_scorer = scorer.score_with_spans(pairs, spans)
    loaded = loading.load(name, "reward", few, 0)
    found = []
    for span in spans:
        first, last = (side.tolist() for side in prefix_scorer.bounds(span))
        cut = [
            pair._replace(chosen=pair.chosen[a:c], rejected=pair.rejected[b:d])
            for pair, (a, b), (c, d) in zip(pairs, first, last, strict=True)
        ]
        expected = [value.chosen[-1] - value.rejected[-1] for value in read(token_rewards, loaded.model, cut)]
        np.testing.assert_allclose(margins(prefix_scorer, span), expected, atol=1e-5)
        np.testing.assert_array_equal(prefix_scorer.margins(span, -np.ones(len(few))), -margins(prefix_scorer, span))
        assert all(
            (pair.chosen[-1] in turn_end(loaded.tokenizer).ids) == (end == "complete" and span.part == "suffix")
            for pair in cut
        )
        found.append(margins(prefix_scorer, span))
    assert np.std(found, axis=0).min() > 1e-4  # the parts differ
    assert "spans: 6 other parts of every response" in capsys.readouterr().err


def test_spans_of_the_same_tokens_are_a_tie(corpus: list[Preference]) -> None:
    twins = [replace(p, rejected=replace(p.rejected, text=p.chosen.text)) for p in corpus[:3]]
    span = Truncation(Keep(Fraction(1, 2)), part="suffix")
    loaded = loading.load("scratch(hidden=32, layers=2, vocab=512)", "reward", twins, 0)
    scorer = reward_prefix_model(*loaded, EncodeOptions(Truncation(), "never", 512), 700)
    pairs = prepare("test", twins, scorer.encode_options, scorer.tokenizer, PrepLog())
    prefix_scorer = scorer.score_with_spans(pairs, [span])
    assert margins(prefix_scorer, span).tolist() == [0, 0, 0]


@pytest.mark.parametrize("by", ["own", "equal", "shared"])
@pytest.mark.parametrize("ratio", ["0.1", "0.5", "0.9"])
def test_one_pass_of_a_policy_and_its_reference_is_many(
    corpus: list[Preference], tokenizer: Tokenizer, ratio: str, by: CutBy
) -> None:
    policy, base = (model("policy", corpus, seed) for seed in (0, 1))
    pairs = pairs_of(corpus, tokenizer)
    truncation = Truncation(Keep(Fraction(ratio)), by)
    values = [read(token_log_probs, each, pairs) for each in (policy, base)]
    prefix_scorer = implicit_reward_prefix_scorer(pairs, *values, BETA, closing_tokens(tokenizer, "complete"))
    apart = [read(token_log_probs, each, cut(pairs, truncation)) for each in (policy, base)]
    expected = [implicit(own, other) for own, other in zip(*apart, strict=True)]
    np.testing.assert_allclose(margins(prefix_scorer, truncation), expected, atol=1e-5)
    assert np.std(expected) > 1e-3


def implicit(own: TokenValues, other: TokenValues) -> float:
    chosen, rejected = (
        math.fsum((a.astype(float) - b).tolist())
        for a, b in ((own.chosen, other.chosen), (own.rejected, other.rejected))
    )
    return BETA * (chosen - rejected)


@pytest.mark.parametrize("end", ["complete", "never"])
def test_all_of_a_response_is_its_full_score(corpus: list[Preference], tokenizer: Tokenizer, end: EndToken) -> None:
    pairs = pairs_of(corpus, tokenizer, end)
    scorer, policy, base = model("reward", corpus), model("policy", corpus), model("policy", corpus, 1)
    rewards = read(token_rewards, scorer, pairs)
    prefix_scorer = reward_prefix_scorer(pairs, rewards, closing_tokens(tokenizer, "complete"))
    expected = [float(value.chosen[-1]) - float(value.rejected[-1]) for value in rewards]
    assert margins(prefix_scorer, Truncation()).tolist() == expected
    values = [read(token_log_probs, each, pairs) for each in (policy, base)]
    summed = implicit_reward_prefix_scorer(pairs, *values, BETA, closing_tokens(tokenizer, "complete"))
    full = [implicit(own, other) for own, other in zip(*values, strict=True)]
    np.testing.assert_allclose(margins(summed, Truncation()), full, atol=1e-12)


def test_what_closes_a_turn_is_not_counted_as_text(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    lengths = []
    for end in ("never", "complete"):
        pairs = pairs_of(corpus, tokenizer, end)  # type: ignore[arg-type]
        nothing = [TokenValues(np.zeros(len(p.chosen), "f"), np.zeros(len(p.rejected), "f")) for p in pairs]
        lengths.append(reward_prefix_scorer(pairs, nothing, closing_tokens(tokenizer, "complete")).lengths.tolist())
    assert lengths[0] == lengths[1]
