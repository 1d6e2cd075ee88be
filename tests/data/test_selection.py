"""Selectors, choices, pairs and what a choice does: hand-worked values, and what holds for every entry of the dicts."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import build
from headwater.data import selection as picking
from headwater.data.preference import Candidates, Message, Preference, Response
from headwater.data.recorded import Recorded, RowName
from headwater.data.selection import (
    PAIRINGS,
    SELECTORS,
    Budget,
    Pool,
    PoolBuilder,
    PromptGroups,
    Rewards,
    choose,
    compared,
    costs,
    duplicates,
)
from headwater.data.selection.choosing import STRATA, interleaved, ranking, without_repeats
from headwater.data.selection.effects import BLOCKS, ranks
from headwater.data.selection.variance import Floats
from headwater.errors import DataError, UsageError

NAN = float("nan")


def prompt(number: int) -> tuple[Message, ...]:
    return (Message("user", f"Question {number}"),)


def candidates(scores: Sequence[float | None], number: int = 0, source: str = "s") -> Candidates:
    responses = tuple(Response("x" * (place + 1), score) for place, score in enumerate(scores))
    return Candidates(prompt=prompt(number), responses=responses, id=f"c:{number}", source=source)


def pair(
    chosen: float | None, rejected: float | None, number: int = 0, lengths: tuple[int, int] = (3, 1)
) -> Preference:
    texts = [Response("x" * length, score) for length, score in zip(lengths, (chosen, rejected), strict=True)]
    return Preference(prompt=prompt(number), chosen=texts[0], rejected=texts[1], id=f"p:{number}", source="s")


def pool_of(*records: Preference | Candidates, **recorded: Sequence[Rewards]) -> Pool:
    builder = PoolBuilder(**recorded)
    for record in records:
        builder.add(record)
    return builder.pool("reward")


def by_id(name: str, rewards: dict[str, list[float]]) -> Rewards:
    """What a run of headwater 0.1 recorded, which knew rows by their ids alone."""
    return Recorded(name, [(RowName(row), values) for row, values in rewards.items()])


def margins(*values: Sequence[float]) -> list[Rewards]:
    """Runs that recorded these margins for pairs p:0, p:1, …; NaN where a run left a pair out."""
    return [
        by_id(f"run{number}", {f"p:{row}": [m, 0.0] for row, m in enumerate(run) if not np.isnan(m)})
        for number, run in enumerate(values)
    ]


def pairs_pool(external: Sequence[float], *implicit: Sequence[float]) -> Pool:
    records = [pair(value, 0.0, row) for row, value in enumerate(external)]
    return pool_of(*records, implicit=margins(*implicit), likelihood=margins(*implicit))


def score(name: str, pool: Pool) -> Floats:
    return build(name, SELECTORS, "selector")(pool)


# --- the pool ------------------------------------------------------------------------------------------------------


def test_a_pool_holds_numbers_and_no_text() -> None:
    pool = pool_of(candidates([1.0, None, 3.0]), candidates([2.0, 2.5], 1, "t"))
    assert (len(pool), pool.paired, pool.unit) == (2, False, "characters")
    assert (pool.ids, pool.sources) == (["c:0", "c:1"], ["s", "t"])
    assert pool.offsets.tolist() == [0, 3, 5]
    assert pool.lengths.tolist() == [1, 2, 3, 1, 2]
    assert pool.prompt_lengths.tolist() == [10, 10]
    np.testing.assert_array_equal(pool.reward, [1, NAN, 3, 2, 2.5])
    assert pool.widest(pool.reward).tolist() == [2.0, 0.5]


def test_a_single_reward_has_no_span() -> None:
    pool = pool_of(candidates([None, 5.0]), candidates([None, None], 1), candidates([1.0, None, 4.0], 2))
    np.testing.assert_array_equal(pool.widest(pool.reward), [NAN, NAN, 3.0])


def test_lengths_are_measured_as_asked() -> None:
    builder = PoolBuilder(lambda texts: [len(text.split()) for text in texts])
    builder.add(candidates([1.0, 2.0]))
    pool = builder.pool("reward")
    assert (pool.unit, pool.lengths.tolist(), pool.prompt_lengths.tolist()) == ("tokens", [1, 1], [2])


def test_probabilities_become_logits_and_others_are_refused() -> None:
    builder = PoolBuilder()
    builder.add(candidates([0.25, 0.75]))
    np.testing.assert_allclose(builder.pool("probability").reward, [-np.log(3), np.log(3)])
    builder.add(candidates([0.5, 7.0], 1))
    with pytest.raises(DataError, match="c:1 · has a score of 7 · expected a probability"):
        builder.pool("probability")


def test_recorded_rewards_replace_those_of_the_data() -> None:
    runs = [by_id("a", {"c:0": [1.0, 2.0, NAN]}), by_id("b", {"c:0": [3.0, 4.0, 5.0], "c:1": [1.0, 0.0]})]
    pool = pool_of(candidates([9, 9, 9]), candidates([9, 9], 1), rewards=runs)
    np.testing.assert_array_equal(pool.rewards, [[1, 2, NAN, NAN, NAN], [3, 4, 5, 1, 0]])
    np.testing.assert_array_equal(pool.reward, [2, 3, NAN, NAN, NAN])  # where a model is missing, so is the mean


def test_recorded_rewards_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="a · has 1 rewards for c:0 · expected 2"):
        pool_of(candidates([1, 2]), rewards=[by_id("a", {"c:0": [1.0]})])
    with pytest.raises(DataError, match="no rewards for this data: its ids are like x:1, the data's like c:0"):
        pool_of(candidates([1, 2]), implicit=[by_id("a", {"x:1": [1.0, 2.0]})])


# --- selectors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_keeps_the_contract(name: str) -> None:
    rng = np.random.default_rng(0)
    external, implicit = rng.normal(1, 1, size=(2, 100))
    pool = pairs_pool(external, implicit)
    selector = build(name, SELECTORS, "selector")
    assert dataclasses.is_dataclass(selector)
    assert selector.takes in ("top", "bottom")
    assert picking.lacking(selector, pool) is None
    found = selector(pool)
    assert found.shape == (100,)
    assert found.dtype == np.float64
    assert not np.isinf(found).any()
    np.testing.assert_array_equal(selector(pool), found)
    if name != "random":  # a row's number is its own: the order of the rows does not count
        order = rng.permutation(100)
        records = [pair(external[row], 0.0, int(row)) for row in order]
        other = pool_of(*records, implicit=margins(implicit), likelihood=margins(implicit))
        np.testing.assert_allclose(selector(other), found[order], rtol=1e-9)


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_says_what_it_lacks(name: str) -> None:
    bare = pool_of(candidates([None, None]))
    selector = build(name, SELECTORS, "selector")
    lacks = picking.lacking(selector, bare)
    assert (lacks is None) == (not selector.needs)
    if lacks:
        assert lacks in selector.needs


def test_pvar_can_count_in_standard_deviations_of_the_corpus() -> None:
    records = [candidates([0.0, 10.0], 0), candidates([5.0, 25.0], 1)]
    spread = np.std([0, 10, 5, 25], ddof=1)
    expected = score(f"pvar(tau={spread})", pool_of(*records))
    np.testing.assert_allclose(score('pvar(scale="corpus")', pool_of(*records)), expected)
    tenfold = [candidates([0.0, 100.0], 0), candidates([50.0, 250.0], 1)]
    np.testing.assert_allclose(score('pvar(scale="corpus")', pool_of(*tenfold)), expected)
    with pytest.raises(DataError, match="do not vary"):
        score('pvar(scale="corpus")', pool_of(candidates([1.0, 1.0])))


BROKEN = [
    *("pvar(tau=0)", "pvar(tau=-1.0)", 'pvar(scale="row")', "pvar(n=2)"),
    *("uncertainty(tau=0)", "dual_margin(low=1.0)"),
]


@pytest.mark.parametrize("call", BROKEN)
def test_settings_that_cannot_work_are_refused(call: str) -> None:
    with pytest.raises(UsageError):
        build(call, SELECTORS, "selector")


def test_gaps_and_uncertainty_have_their_hand_worked_values() -> None:
    pool = pool_of(candidates([0.0, 1.0, 3.0]), candidates([2.0, 2.0], 1))
    assert score("reward_gap", pool).tolist() == [3.0, 0.0]
    assert score("length_gap", pool).tolist() == [2.0, 1.0]
    halves = [1 / (1 + np.exp(-d)) - 0.5 for d in (1, 2, 3)]
    np.testing.assert_allclose(score("uncertainty", pool), [0.5 - np.mean(halves), 0.5])
    assert score("reward_gap", pool_of(pair(1.0, 3.0))).tolist() == [2.0]  # of a pair, without its sign


def test_implicit_margins_keep_their_sign_and_skip_models_that_did_not_score() -> None:
    pool = pairs_pool([0, 0, 0], [2.0, NAN, -1.0], [4.0, 6.0, NAN])
    assert score("implicit_gap", pool).tolist() == [3.0, 6.0, -1.0]
    expected = [np.mean(np.log1p(np.exp([-2.0, -4.0]))), np.log1p(np.exp(-6.0)), np.log1p(np.exp(1.0))]
    np.testing.assert_allclose(score("held_out_loss", pool), expected)


def test_the_dual_margin_of_a_worked_example() -> None:
    # Fewer than 30 rows have no tail to thin: U is max/1.5 = 4 and max/2 = 2.
    external, implicit = [6.0, 1.0, 1.0, -1.0], [1.0, 4.0, -3.0, 4.0]
    found = score("dual_margin", pairs_pool(external, implicit))
    p = (min(6, 4) + 2) / 6, (1 + 2) / 4
    q = (1 + 2) / 6, (min(4, 2) + 2) / 4
    expected = [a * b / (a * b + (1 - a) * (1 - b)) for a, b in (p, q)]
    np.testing.assert_allclose(found[:2], expected)
    assert np.isnan(found[2:]).all()  # a margin that is not positive


def test_likelihood_is_the_mean_over_responses_and_policies() -> None:
    runs = [by_id("a", {"c:0": [-1.0, -2.0, NAN], "c:1": [-4.0, -6.0]}), by_id("b", {"c:0": [-5.0, -6.0, -7.0]})]
    pool = pool_of(candidates([1, 2, 3]), candidates([1, 2], 1), candidates([1, 2], 2), likelihood=runs)
    np.testing.assert_array_equal(score("likelihood", pool), [(-1.5 + -6.0) / 2, -5.0, NAN])


def test_data_that_holds_likelihoods_holds_no_rewards() -> None:
    builder = PoolBuilder()
    builder.add(candidates([-1.0, -3.0]))
    pool = builder.pool("likelihood")
    assert score("likelihood", pool).tolist() == [-2.0]
    assert picking.lacking(SELECTORS["pvar"](), pool) == "rewards"


def test_the_dual_margin_thins_its_tail() -> None:
    external = np.concatenate([np.full(50, 9.0) + np.arange(50) / 100, np.full(50, 1.0)])
    found = score("dual_margin", pairs_pool(external, [1.0] * 99 + [10.0]))
    # 50 margins lie above max/1.5 = 6.3, so that U is raised: only 29 may lie above the 30th largest, 9.20.
    assert len(np.unique(found[:50])) == 21
    with pytest.raises(DataError, match="expected positive margins"):
        score("dual_margin", pairs_pool([-1.0, -2.0], [1.0, 1.0]))


def test_rivals_are_all_others_that_the_data_serves_and_each_model_alone() -> None:
    plain = pool_of(candidates([1.0, 2.0]))
    assert [name for name, _, _ in picking.alternatives(SELECTORS["pvar"](), plain, [])] == [
        *("reward_gap", "uncertainty", "length_gap"),
    ]
    runs = [by_id("a", {"c:0": [0.0, 0.0]}), by_id("b", {"c:0": [0.0, 99.0]})]
    alone = list(picking.alternatives(SELECTORS["pvar"](), pool_of(candidates([1.0, 2.0]), rewards=runs), ["a", "b"]))[
        -2:
    ]
    assert [(name, float(selector(pool)[0])) for name, selector, pool in alone] == [
        *(("the same, by a alone", 0.0), ("the same, by b alone", 0.25)),
    ]


# --- choosing ------------------------------------------------------------------------------------------------------

SCORES = np.array([0.3, NAN, 0.1, 0.9, 0.5, 0.7])


def test_which_part_of_the_ranking() -> None:
    assert ranking(SCORES, "top", 0).tolist() == [3, 5, 4, 0, 2]
    assert ranking(SCORES, "bottom", 0).tolist() == [2, 0, 4, 5, 3]
    assert ranking(SCORES, "middle", 0).tolist()[0] == 4
    assert set(ranking(SCORES, "middle", 0).tolist()[:3]) == {0, 4, 5}
    assert sorted(ranking(SCORES, "random", 0).tolist()) == [0, 2, 3, 4, 5]


def test_a_random_part_is_uniform_and_seeded() -> None:
    scores = np.arange(1000.0)
    first = ranking(scores, "random", 1)
    assert (first == ranking(scores, "random", 1)).all()
    assert (first != ranking(scores, "random", 2)).any()
    assert abs(first[:200].mean() - 499.5) < 4 * 288.7 / np.sqrt(200)


def test_ties_come_in_no_order_of_the_file() -> None:
    scores = np.zeros(1000)
    assert abs(ranking(scores, "top", 0)[:200].mean() - 499.5) < 4 * 288.7 / np.sqrt(200)


@given(st.integers(20, 200), st.integers(0, 5))
def test_every_beginning_of_a_stratified_choice_is_spread_evenly(rows: int, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(rows).astype(float)
    order = ranking(scores, "stratified", seed)
    for count in (STRATA, 2 * STRATA):
        strata = Counter((scores[order[:count]] * STRATA // rows).astype(int).tolist())
        assert max(strata.values()) - min(strata[s] for s in range(STRATA)) <= 1


def test_sources_keep_their_share_in_every_beginning() -> None:
    groups = np.array(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    order = interleaved(np.arange(100), groups)
    for count in (10, 20, 50, 100):
        assert Counter(groups[order[:count]].tolist()) == {"a": 0.6 * count, "b": 0.3 * count, "c": 0.1 * count}
    for group in "abc":
        members = [row for row in order.tolist() if groups[row] == group]
        assert members == sorted(members)


def test_of_a_group_only_the_first_taken_stays() -> None:
    assert without_repeats(np.array([1, 0, 2, 3]), [7, 7, 8, 8]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "amount", "unit", "share"),
    [
        ("10%", 0.1, "prompts", True),
        ("100%", 1, "prompts", True),
        ("12.5%tokens", 0.125, "tokens", True),
        ("500prompts", 500, "prompts", False),
        ("2000 pairs", 2000, "pairs", False),
        ("1pair", 1, "pairs", False),
        ("1000000tok", 1_000_000, "tokens", False),
    ],
)
def test_budgets_are_read(text: str, amount: float, unit: str, share: bool) -> None:
    assert Budget.parse(text) == Budget(Budget.parse(text).amount, unit, share)  # type: ignore[arg-type]
    assert float(Budget.parse(text).amount) == amount


@pytest.mark.parametrize(
    "text", ["10", "0.1", "", "0%", "101%", "0prompts", "1.5pairs", "-5%", "10%rows", "ten%", "1e3tokens"]
)
def test_budgets_that_could_mean_anything_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        Budget.parse(text)


def test_a_budget_is_never_passed() -> None:
    amounts = np.array([3, 4, 5, 1])
    assert [Budget.parse(f"{n}tokens").afforded(amounts, 13) for n in (2, 3, 7, 11, 12, 13)] == [0, 1, 2, 2, 3, 4]
    assert Budget.parse("50%tokens").afforded(amounts, 13) == 1  # 6.5 tokens


def test_a_choice_accounts_for_every_row() -> None:
    choice = choose(SCORES, np.array([1, 1, 1, 0, 1, 1]), Budget.parse("2prompts"), "top", 0, groups=[0, 1, 2, 3, 5, 5])
    assert choice.rows.tolist() == [5, 0]
    assert choice.dropped == {"undefined_score": 1, "no_pair": 1, "near_duplicate": 1, "over_budget": 1}
    assert len(choice.rows) + choice.dropped.total() == len(SCORES)


def test_a_share_is_one_of_all_rows_read() -> None:
    scores = np.array([0.1, NAN, NAN, NAN])
    assert choose(scores, np.ones(4, dtype=np.int64), Budget.parse("50%"), "top", 0).rows.tolist() == [0]
    scores = np.arange(4.0)
    assert len(choose(scores, np.array([1, 0, 0, 1]), Budget.parse("50%"), "top", 0).rows) == 2


def test_ties_at_the_end_are_counted() -> None:
    choice = choose(np.array([1.0, 0.5, 0.5, 0.5]), np.ones(4, dtype=np.int64), Budget.parse("2prompts"), "top", 0)
    assert choice.tied == 2
    ones = np.ones(4, dtype=np.int64)
    assert choose(np.zeros(4), ones, Budget.parse("2prompts"), "random", 0).tied == 0  # no end, nothing to tie at


def test_a_choice_by_source_takes_the_best_of_each() -> None:
    scores, sources = np.arange(10.0), ["a"] * 5 + ["b"] * 5
    by_source = choose(scores, np.ones(10, dtype=np.int64), Budget.parse("4prompts"), "top", 0, sources=sources)
    assert sorted(by_source.rows.tolist()) == [3, 4, 8, 9]


def test_near_duplicate_prompts_share_a_group_also_by_way_of_others() -> None:
    words = [f"w{n}" for n in range(60)]
    texts = [
        " ".join(words),
        " ".join([*words, "more"]),
        " ".join([*words, "more", "yet"]),
        "something else",
        "Something  ELSE",
    ]
    groups = PromptGroups()
    for text in texts:
        groups.add((Message("user", text),))
    found = groups.groups()
    assert found[0] == found[1] == found[2] != found[3] == found[4]


def test_groups_grow_together_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ([("0", "2"), ("1", "2")], [("0", "1"), ("2", "3"), ("1", "3")], [("3", "0"), ("2", "0"), ("2", "1")]):
        monkeypatch.setattr(duplicates, "near_pairs", lambda texts, found=found: found)
        groups = PromptGroups()
        for text in "abcd":
            groups.add((Message("user", text),))
        named = {int(place) for pair in found for place in pair}
        assert len({groups.groups()[place] for place in named}) == 1
        assert len(set(groups.groups())) == 1 + 4 - len(named)


# --- pairs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRINGS)
@given(st.lists(st.integers(-3, 3).map(float) | st.just(NAN), min_size=0, max_size=7), st.text(max_size=3))
def test_every_pairing_keeps_the_contract(name: str, rewards: list[float], seed: str) -> None:
    pairing = build(name, PAIRINGS, "pairing")
    values = np.array(rewards)
    found = compared(pairing, values, seed)
    assert found == compared(pairing, values, seed)
    assert len(set(map(frozenset, found.pairs))) == len(found.pairs)
    for better, worse in found.pairs:
        assert values[better] > values[worse]
    known = int((~np.isnan(values)).sum())
    most = known * (known - 1) // 2 if name == "all" else min(1, known // 2)
    assert len(found.pairs) + found.ties <= most
    if name not in ("sigma", "best_sigma"):
        assert len(found.pairs) + found.ties == most


def test_pairs_have_their_hand_worked_places() -> None:
    rewards = np.array([1.0, 5.0, NAN, 0.0, 5.0, 2.9])
    assert compared(PAIRINGS["best_worst"](), rewards, "") == (((1, 3),), 0)
    assert len(compared(PAIRINGS["all"](), rewards, "").pairs) == 9
    assert compared(PAIRINGS["all"](), rewards, "").ties == 1
    # μ = 2.78, σ = 2.04: μ + σ = 4.8, μ − σ = 0.7.
    assert compared(build("sigma(k=1.0)", PAIRINGS, "pairing"), rewards, "").pairs == ((1, 0),)
    assert compared(build("best_sigma(k=1.0)", PAIRINGS, "pairing"), rewards, "").pairs == ((1, 0),)
    assert compared(build("best_sigma(k=2.0)", PAIRINGS, "pairing"), rewards, "").pairs == ((1, 3),)
    with pytest.raises(UsageError):
        build("sigma(k=0)", PAIRINGS, "pairing")


def test_random_pairs_are_uniform() -> None:
    rewards = np.array([0.0, 1.0, 2.0])
    drawn = Counter(compared(PAIRINGS["random"](), rewards, str(seed)).pairs[0] for seed in range(3000))
    assert set(drawn) == {(1, 0), (2, 0), (2, 1)}
    assert all(abs(count - 1000) < 4 * np.sqrt(3000 * 2 / 9) for count in drawn.values())
    middle = np.array([0.0, 2.0, 1.0])  # the best has others on both sides
    others = Counter(compared(PAIRINGS["best_random"](), middle, str(seed)).pairs[0] for seed in range(2000))
    assert set(others) == {(1, 0), (1, 2)}
    assert all(abs(count - 1000) < 4 * np.sqrt(500) for count in others.values())


def test_all_equal_is_a_tie() -> None:
    for name in ("best_worst", "best_random", "random"):
        assert compared(PAIRINGS[name](), np.ones(3), "") == ((), 1)


def test_costs_in_every_unit() -> None:
    pool = pool_of(candidates([1.0, 2.0, 2.0]), candidates([1.0, 1.0], 1))
    assert costs(pool, "prompts", None, 0).tolist() == [1, 1]
    assert costs(pool, "tokens", None, 0).tolist() == [10 + 1 + 2 + 3, 10 + 1 + 2]
    every = PAIRINGS["all"]()
    assert costs(pool, "prompts", every, 0).tolist() == [1, 0]
    assert costs(pool, "pairs", every, 0).tolist() == [2, 0]
    assert costs(pool, "tokens", every, 0).tolist() == [10 + 2 + 1 + 10 + 3 + 1, 0]
    assert costs(pool_of(pair(1, 0)), "pairs", None, 0).tolist() == [1]


# --- what a choice does --------------------------------------------------------------------------------------------


def test_ranks_share_their_mean_where_values_are_equal() -> None:
    assert ranks(np.array([10.0, 30.0, 20.0, 20.0])).tolist() == [1, 4, 2.5, 2.5]


def test_agreement_of_a_selector_with_itself_with_its_opposite_and_with_chance() -> None:
    pool = pairs_pool(np.random.default_rng(0).normal(size=400))
    scores = score("reward_gap", pool)
    top, bottom = np.argsort(-scores)[:40], np.argsort(scores)[:40]
    same = picking.agreement(pool, "same", scores, scores, top, top, 0)
    assert (same.correlation.value, same.overlap.value, same.chance) == (pytest.approx(1), 1, 0.1)
    opposite = picking.agreement(pool, "opposite", scores, -scores, top, bottom, 0)
    assert (opposite.correlation.value, opposite.overlap.value) == (pytest.approx(-1), 0)
    other = picking.agreement(pool, "random", scores, score("random", pool), top, bottom, 0)
    assert other.correlation.low is not None and other.correlation.high is not None
    assert other.correlation.low < 0 < other.correlation.high
    flat = picking.agreement(pool, "flat", scores, np.zeros(400), top, bottom, 0)
    assert np.isnan(flat.correlation.value)


def test_effects_compare_all_rows_with_those_taken() -> None:
    pool = pool_of(*(pair(float(n), 0.0, n, (n + 2, 1)) for n in range(10)))
    found = picking.effects(pool, picking.columns_of(pool), np.array([8, 9]), 0)
    assert set(found) == {"response_characters", "chosen_minus_rejected_characters", "reward_gap"}
    assert (found["reward_gap"].all.value, found["reward_gap"].taken.value) == (4.5, 8.5)
    assert (found["chosen_minus_rejected_characters"].all.n, found["reward_gap"].taken.n) == (10, 2)
    assert found["response_characters"].taken.value == (10 + 1 + 11 + 1) / 4
    assert "reward_gap" not in picking.columns_of(pool_of(candidates([None, None])))


def test_sources_are_counted_before_and_after() -> None:
    pool = pool_of(*(candidates([1.0, 2.0], n, "ab"[n % 2]) for n in range(5)))
    assert picking.by_source(pool, np.array([0, 1])) == {"a": (3, 1), "b": (2, 1)}


def test_many_openings_are_dealt_into_blocks_that_keep_the_interval() -> None:
    names = [f"{random.Random(n).getrandbits(64):016x}" for n in range(3 * BLOCKS)]
    found = picking.blocks([name for name in names for _ in range(2)])
    assert len(set(found)) <= BLOCKS
    assert found[0::2] == found[1::2]
    assert picking.blocks(names[:5]) == names[:5]
