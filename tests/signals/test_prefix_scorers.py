from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.data.tokens import PairTokens
from headwater.data.truncation import Keep, Truncation
from headwater.data.turns import Closing, closing_of
from headwater.forward.passes import TokenValues
from headwater.signals.prefix_scorers import first_of, implicit_reward_prefix_scorer, kept_of, reward_prefix_scorer

END = 9
CLOSING = Closing((END,))
ONES = np.ones(1)


def pair(chosen: list[int], rejected: list[int]) -> PairTokens:
    ids = (np.array(side, dtype=np.int32) for side in ([1, 2], chosen, rejected))
    return PairTokens(*ids, id="r", source="s", conversation_id="o")


def values(chosen: list[float], rejected: list[float]) -> TokenValues:
    return TokenValues(np.array(chosen, dtype=np.float32), np.array(rejected, dtype=np.float32))


keeps = st.builds(Keep, st.integers(1, 100).map(lambda n: Fraction(n, 100)), st.just("ratio")) | st.builds(
    Keep, st.integers(1, 80).map(Fraction), st.just("tok")
)


@given(keeps, st.sampled_from(["own", "equal", "shared"]), st.lists(st.tuples(*[st.integers(1, 60)] * 2), min_size=1))
def test_cuts_count_as_truncation_does(keep: Keep, cut: str, lengths: list[tuple[int, int]]) -> None:
    truncation = Truncation(keep, cut)  # type: ignore[arg-type]
    expected = [truncation.counts(*pair) for pair in lengths]
    assert kept_of(truncation, np.array(lengths)).tolist() == [list(pair) for pair in expected]


@given(st.lists(st.tuples(*[st.integers(1, 60)] * 2), min_size=1), st.integers(1, 99))
def test_parts_lie_where_truncation_has_them(lengths: list[tuple[int, int]], percent: int) -> None:
    sizes = np.array(lengths)
    for part in ("prefix", "suffix", "middle", "random-span"):
        truncation = Truncation(Keep(Fraction(percent, 100)), part=part)  # type: ignore[arg-type]
        kept = kept_of(truncation, sizes)
        first = first_of(truncation, sizes, kept)
        assert (first >= 0).all() and (first + kept <= sizes).all()
        if part != "random-span":
            expected = [[truncation.first(int(n), int(k), "") for n, k in zip(*row)] for row in zip(sizes, kept)]  # noqa: B905
            assert first.tolist() == expected


def margin(prefix_scorer: object, keep: str, **how: object) -> float:
    truncation = Truncation(Keep(Fraction(keep)), **how)  # type: ignore[arg-type]
    return float(prefix_scorer.margins(truncation, ONES)[0])  # type: ignore[attr-defined]


def test_a_reward_model_is_read_where_the_cut_ends() -> None:
    prefix_scorer = reward_prefix_scorer([pair([3, 4, 5, 6], [7, 8])], [values([1, 2, 3, 4], [10, 20])], CLOSING)
    assert margin(prefix_scorer, "1") == 4 - 20
    assert margin(prefix_scorer, "0.5") == 2 - 10
    assert margin(prefix_scorer, "0.5", cut="shared") == 2 - 20
    assert margin(prefix_scorer, "1", cut="equal") == 2 - 20
    assert [prefix_scorer.reads(Truncation(Keep(Fraction("0.5")), part=part)) for part in ("prefix", "suffix")] == [
        True,
        False,
    ]


def test_an_implicit_reward_adds_up_to_the_cut_and_over_spans() -> None:
    policy, reference = values([-1, -2, -3, -4], [-5, -6]), values([-2, -4, -6, -8], [-6, -8])
    prefix_scorer = implicit_reward_prefix_scorer([pair([3, 4, 5, 6], [7, 8])], [policy], [reference], 0.5, CLOSING)
    assert margin(prefix_scorer, "1") == 0.5 * ((1 + 2 + 3 + 4) - (1 + 2))
    assert margin(prefix_scorer, "0.5") == 0.5 * ((1 + 2) - 1)
    assert margin(prefix_scorer, "0.5", part="suffix") == 0.5 * ((3 + 4) - 2)
    assert margin(prefix_scorer, "0.5", part="middle") == 0.5 * ((2 + 3) - 1)


def test_shuffled_labels_turn_the_margin_round() -> None:
    prefix_scorer = reward_prefix_scorer([pair([3, 4], [5, 6])], [values([1, 2], [3, 5])], CLOSING)
    assert prefix_scorer.margins(Truncation(), -ONES)[0] == -prefix_scorer.margins(Truncation(), ONES)[0] == 3


def test_the_closing_token_belongs_to_whole_responses_only() -> None:
    """Four tokens of text and one that closes the turn: half is two tokens, all is five."""
    prefix_scorer = reward_prefix_scorer(
        [pair([3, 4, 5, 6, END], [7, 8, END])], [values([1, 2, 3, 4, 5], [10, 20, 30])], CLOSING
    )
    assert prefix_scorer.lengths.tolist() == [[4, 2]]
    assert margin(prefix_scorer, "0.5") == 2 - 10
    assert margin(prefix_scorer, "1") == 5 - 30
    assert margin(prefix_scorer, "1", cut="equal") == 2 - 30


def test_all_that_the_template_writes_closes_a_response_and_a_line_break_of_its_own_does_not() -> None:
    """The line break (8) behind the end belongs to what closes; a truncated response that ends in one is not closed."""
    closing = Closing((END, 8), 2)
    prefix_scorer = reward_prefix_scorer([pair([3, 4, END, 8], [5, 8])], [values([1, 2, 3, 4], [10, 20])], closing)
    assert prefix_scorer.lengths.tolist() == [[2, 2]]
    assert margin(prefix_scorer, "1") == 4 - 20
    assert margin(prefix_scorer, "0.5") == 1 - 10


@pytest.mark.parametrize(
    ("response", "closing", "count"),
    [
        ([3, 7, 8, 9], Closing((7, 8, 9)), 3),
        ([3, 5, 8, 9], Closing((7, 8, 9)), 2),  # its first token merged with the text
        ([3, 5, 9], Closing((7, 8, 9)), 1),
        ([3, 5], Closing((7, 8, 9)), 0),
        ([9], Closing((8, 9)), 1),
        ([3, 8], Closing((9, 8), 2), 0),
        ([3], Closing((), 0), 0),
    ],
)
def test_what_closes_a_response_is_counted(response: list[int], closing: Closing, count: int) -> None:
    assert closing_of(np.array(response, dtype=np.int32), closing) == count


def test_the_same_prefix_is_a_tie_whatever_rounding_says() -> None:
    prefix_scorer = reward_prefix_scorer(
        [pair([3, 4, 5, 6], [3, 4, 7, 8])], [values([1, 1 + 1e-6, 3, 4], [1, 1, 0, 0])], CLOSING
    )
    assert margin(prefix_scorer, "0.5") == 0
    assert margin(prefix_scorer, "0.75") == 3


@pytest.mark.parametrize("ratio", ["0.01", "0.3", "1"])
def test_at_least_one_token_is_read(ratio: str) -> None:
    prefix_scorer = reward_prefix_scorer([pair([END], [7])], [values([1], [10])], CLOSING)
    assert margin(prefix_scorer, ratio) == -9
