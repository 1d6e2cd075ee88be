"""Losses: worked by hand, at their limits, and held to what is true of all of them."""

from __future__ import annotations

import doctest
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from headwater import losses
from headwater.config import build
from headwater.errors import DataError, UsageError
from headwater.losses import (
    AOT,
    CPO,
    DPO,
    DPOP,
    FDPO,
    IPO,
    KTO,
    LIVE_REFERENCE_LOSSES,
    ORPO,
    POLICY_LOSSES,
    RDPO,
    REWARD_LOSSES,
    RPO,
    SFT,
    TDPO1,
    TDPO2,
    WPO,
    AOTUnpaired,
    APODown,
    APOZero,
    BCOPair,
    BeeS,
    BradleyTerry,
    DiscoPOP,
    EXOPair,
    Hinge,
    IPOSum,
    LengthBradleyTerry,
    LossBase,
    MarginBradleyTerry,
    Mix,
    NCAPair,
    PairLoss,
    PairScores,
    RobustDPO,
    RPOBackwardKL,
    RPOForwardKL,
    RPOSquared,
    RPOSum,
    Score,
    SimPO,
    SLiC,
    SortedBatch,
    SPPOHard,
    loss_of,
)
from headwater.losses.naming import OTHER_NAMES
from headwater.losses.reference_free import log_odds
from headwater.losses.worked import POLICY, REFERENCE, worked

TABLE: dict[str, type[LossBase]] = {**POLICY_LOSSES, **LIVE_REFERENCE_LOSSES, **REWARD_LOSSES, "sft": SFT}
ALL: dict[str, LossBase] = {name: make() for name, make in TABLE.items()}
ON_LOG_RATIOS = [name for name, loss in ALL.items() if loss.needs_reference]


def scores(
    chosen: Sequence[float],
    rejected: Sequence[float],
    tokens: tuple[int, int] = (4, 4),
    gap: float = 0.8,
    self_likelihood: float = -0.1,
    divergence: tuple[float, float] = (0.3, 0.5),
    kl_estimate: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> PairScores:
    """Scores that hold whatever a loss may need."""

    def side(values: Sequence[float], count: int, kl: float) -> Score:
        like = torch.ones(len(values), dtype=dtype)
        return Score(
            torch.tensor(values, dtype=dtype, requires_grad=True),
            torch.full((len(values),), count),
            self_likelihood=(like * self_likelihood).requires_grad_(),
            divergence=(like * kl).requires_grad_(),
        )

    sides = side(chosen, tokens[0], divergence[0]), side(rejected, tokens[1], divergence[1])
    like = torch.ones(len(chosen), dtype=dtype)
    return PairScores(*sides, {"score_gap": like * gap, "kl_estimate": (like * kl_estimate).requires_grad_()})


def reference_of(loss: LossBase, given: PairScores) -> PairScores | None:
    return given if loss.needs_reference else None


def of_batch(loss: LossBase, policy: PairScores, reference: PairScores) -> PairLoss:
    """Return the loss of pairs that are a whole batch."""
    if isinstance(loss, SortedBatch):
        policy = policy._replace(columns=loss.batch_columns(policy, reference))
    return loss(policy, reference_of(loss, reference))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


ODDS = math.log(math.exp(-0.25) / (1 - math.exp(-0.25))) - math.log(math.exp(-1.5) / (1 - math.exp(-1.5)))
COINS = sigmoid(0.8), sigmoid(1.0)  # of the data (δ = 0.8), and of the policy (β h = 1)
BY_HAND: list[tuple[LossBase, float]] = [
    (DPO(beta=0.5), -log_sigmoid(1)),
    (DPO(beta=0.5, label_smoothing=0.1), -0.9 * log_sigmoid(1) - 0.1 * log_sigmoid(-1)),
    (RobustDPO(beta=0.5, label_smoothing=0.1), (-0.9 * log_sigmoid(1) + 0.1 * log_sigmoid(-1)) / 0.8),
    (IPO(beta=0.5), (0.5 / 4 + 1.5 / 2 - 1) ** 2),
    (IPOSum(beta=0.5), (2 - 1) ** 2),
    (Hinge(beta=0.3), 0.4),
    (RDPO(beta=0.5, alpha=0.2), -log_sigmoid(1 + 0.2 * 2)),
    (DPOP(beta=0.5, penalty=3), -log_sigmoid(1)),
    (RPO(beta=0.5, alpha=2), -log_sigmoid(1) + 2 * 1 / 4),
    (RPOSum(beta=0.5, eta=2), -log_sigmoid(1) + 2 * 1),
    (WPO(beta=0.5), -math.exp(-0.2) * log_sigmoid(1)),
    (TDPO1(beta=0.5), -log_sigmoid(1 - 0.5 * (0.5 - 0.3))),
    (TDPO2(beta=0.5, alpha=0.25), -log_sigmoid(1 - 0.25 * 0.5 * (0.5 - 0.3))),
    (KTO(beta=0.5, desirable_weight=2, undesirable_weight=3), (2 * sigmoid(-0.15) + 3 * sigmoid(-0.85)) / 2),
    (FDPO(beta=0.5, divergence="forward_kl"), -log_sigmoid(0.5 * (math.exp(1.5) - math.exp(-0.5)))),
    (FDPO(beta=0.5, divergence="js"), -log_sigmoid(0.5 * (log_sigmoid(0.5) - log_sigmoid(-1.5)))),
    (FDPO(beta=0.5, divergence="alpha"), -log_sigmoid(math.exp(0.75) - math.exp(-0.25))),
    (
        EXOPair(beta=0.5, label_smoothing=0.1),
        COINS[1] * math.log(COINS[1] / 0.9) + (1 - COINS[1]) * math.log((1 - COINS[1]) / 0.1),
    ),
    (DiscoPOP(beta=0.5, tau=0.5), -(1 - sigmoid(2)) * log_sigmoid(1) + sigmoid(2) * math.exp(-1)),
    (NCAPair(beta=0.5), -log_sigmoid(0.25) - 0.5 * log_sigmoid(-0.25) - 0.5 * log_sigmoid(0.75)),
    (BCOPair(beta=0.5), -log_sigmoid(0.25) - log_sigmoid(0.75)),
    (SPPOHard(beta=0.5), (0.5 - 1) ** 2 + (-1.5 + 1) ** 2),
    (APOZero(beta=0.5), 1 - sigmoid(0.25) + sigmoid(-0.75)),
    (APODown(beta=0.5), sigmoid(0.25) + 1 - sigmoid(1)),
    (AOT(beta=0.5), -log_sigmoid(1)),
    (AOTUnpaired(beta=0.5), -log_sigmoid(1)),
    (RPOSquared(beta=0.5), (1 - 0.8) ** 2),
    (
        RPOBackwardKL(beta=0.5),
        COINS[0] * math.log(COINS[0] / COINS[1]) + (1 - COINS[0]) * math.log((1 - COINS[0]) / (1 - COINS[1])),
    ),
    (
        RPOForwardKL(beta=0.5),
        COINS[1] * math.log(COINS[1] / COINS[0]) + (1 - COINS[1]) * math.log((1 - COINS[1]) / (1 - COINS[0])),
    ),
    (BeeS(beta=0.5, low=-1, high=1), -0.9 * log_sigmoid(1)),
    (SimPO(beta=2, gamma=0.5), -log_sigmoid(2 * (-0.25 + 1.5) - 0.5)),
    (ORPO(beta=0.1), 0.25 - 0.1 * log_sigmoid(ODDS)),
    (CPO(beta=0.5, alpha=2), -log_sigmoid(1) + 2 * 0.25),
    (SLiC(delta=5, alpha=0.1), 5 + 1 - 3 + 0.1),
    (SFT(), 0.25),
    (BradleyTerry(center=0.1), -log_sigmoid(2) + 0.1 * (1 + 9) / 2),
    (BradleyTerry(label_smoothing=0.2), -0.8 * log_sigmoid(2) - 0.2 * log_sigmoid(-2)),
    (MarginBradleyTerry(scale=0.5, center=0.1), -log_sigmoid(2 - 0.4) + 0.1 * (1 + 9) / 2),
    (LengthBradleyTerry(alpha=-0.2, center=0.1), -log_sigmoid(2 - 0.2 * 2) + 0.1 * (1 + 9) / 2),
]


@pytest.mark.parametrize(("loss", "expected"), BY_HAND, ids=lambda value: repr(value))
def test_by_hand(loss: LossBase, expected: float) -> None:
    assert of_batch(loss, POLICY, REFERENCE).loss.item() == pytest.approx(expected, rel=1e-12)


def test_every_loss_is_worked_by_hand() -> None:
    assert {loss.name for loss, _ in BY_HAND} == set(ALL)


@pytest.mark.parametrize("name", TABLE)
def test_docstrings_work_their_loss_by_hand(name: str) -> None:
    kind = TABLE[name]
    examples = {**vars(losses), "worked": worked}
    found = doctest.DocTestFinder(recurse=False).find(kind, globs=examples)
    failed, tried = doctest.DocTestRunner().run(found[0])
    assert (failed, tried) == (0, 1)


def test_dpop_lowers_the_margin_by_what_the_chosen_response_lost() -> None:
    fallen = scores([-2.0], [-5.5])  # Δ = −0.5 and −4, h = 3.5
    result = DPOP(beta=0.5, penalty=3)(fallen, REFERENCE)
    assert result.loss.item() == pytest.approx(-log_sigmoid(0.5 * (3.5 - 3 * 0.5)))


def test_rewards_are_beta_times_the_log_ratio() -> None:
    result = DPO(beta=0.5)(POLICY, REFERENCE)
    assert (result.chosen_reward.item(), result.rejected_reward.item()) == pytest.approx((0.25, -0.75))


@pytest.mark.parametrize("name", ALL)
def test_the_call_builds_the_loss_again(name: str) -> None:
    assert ALL[name].name == name
    assert build(repr(ALL[name]), TABLE, "loss") == ALL[name]


VALUES = [-1e4, -50.0, -1.0, -1e-8]


@pytest.mark.fault("N4")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("reference", [VALUES[::-1], VALUES], ids=["far from the reference", "at the reference"])
@pytest.mark.parametrize("other", [VALUES[::-1], VALUES], ids=["unlike responses", "like responses"])
@pytest.mark.parametrize("name", ALL)
def test_one_loss_a_pair_finite_with_finite_gradients(
    name: str, other: list[float], reference: list[float], tokens: int, dtype: torch.dtype
) -> None:
    loss = ALL[name]
    policy = scores(VALUES, other, (tokens, tokens), dtype=dtype)
    result = of_batch(loss, policy, scores(reference, reference[::-1], (tokens, tokens), dtype=dtype))
    assert result.loss.shape == (4,)
    assert result.loss.dtype == dtype
    assert not result.chosen_reward.requires_grad
    result.loss.sum().backward()
    for found in (result.loss, result.chosen_reward, result.rejected_reward):
        assert torch.isfinite(found).all()
    for side in (policy.chosen, policy.rejected):
        assert side.value.grad is None or torch.isfinite(side.value.grad).all()
    assert policy.chosen.value.grad is not None


@pytest.mark.parametrize("name", ALL)
def test_a_step_down_the_loss_raises_the_margin(name: str) -> None:
    loss = ALL[name]
    policy, reference = scores([-3.0], [-3.0]), scores([-3.0], [-3.0])
    of_batch(loss, policy, reference).loss.sum().backward()
    assert policy.chosen.value.grad is not None
    if name == "discopop":
        assert policy.chosen.value.grad.item() > 0, "as documented: at the reference it lowers the margin"
        return
    assert policy.chosen.value.grad.item() < 0 or name == "apo_down"
    if name != "sft":
        assert policy.rejected.value.grad is not None
        assert policy.rejected.value.grad.item() > 0


@pytest.mark.parametrize("name", ALL)
def test_both_responses_are_rewarded_by_one_rule(name: str) -> None:
    loss = ALL[name]
    policy = scores([-1.0, -9.0], [-3.0, -2.0], (4, 2))
    reference = scores([-1.5, -8.0], [-2.5, -4.0], (4, 2))

    def swapped(given: PairScores) -> PairScores:
        return given._replace(chosen=given.rejected, rejected=given.chosen)

    result = of_batch(loss, policy, reference)
    turned = of_batch(loss, swapped(policy), swapped(reference))
    assert torch.equal(result.chosen_reward, turned.rejected_reward)
    assert torch.equal(result.rejected_reward, turned.chosen_reward)


@pytest.mark.parametrize("name", ON_LOG_RATIOS)
def test_only_the_change_from_the_reference_matters(name: str) -> None:
    """The same constant on policy and reference changes nothing, but for a term that fits the chosen response."""
    loss = ALL[name]
    near = of_batch(loss, scores([-3.0], [-5.0]), scores([-4.0], [-4.5])).loss
    far = of_batch(loss, scores([-13.0], [-25.0]), scores([-14.0], [-24.5])).loss
    fitted = {"rpo": 10 / 4, "rpo_sum": 10 * 0.005}.get(name, 0.0)
    assert (far - near).item() == pytest.approx(fitted, abs=1e-12)


LIMITS: list[tuple[LossBase, LossBase]] = [
    (DPO(label_smoothing=0.0), DPO()),
    (RobustDPO(label_smoothing=0.0), DPO()),
    (RDPO(alpha=0.0), DPO()),
    (DPOP(penalty=0.0), DPO()),
    (RPO(alpha=0.0), DPO()),
    (RPOSum(beta=0.1, eta=0.0), DPO()),
    (TDPO2(alpha=0.0), DPO()),
    (MarginBradleyTerry(scale=1e-300), BradleyTerry()),
    (LengthBradleyTerry(alpha=0.0), BradleyTerry()),
    (BeeS(low=-2.0, high=0.8), DPO()),
    (FDPO(divergence="reverse_kl"), DPO()),
    (EXOPair(label_smoothing=sigmoid(-0.8)), RPOForwardKL()),
    (Mix(((DPO(), 1.0),)), DPO()),
    (Mix(((DPO(), 1.0), (SFT(), 1.0))), RPO()),
]


@pytest.mark.parametrize(("loss", "limit"), LIMITS, ids=lambda value: repr(value))
def test_limits(loss: LossBase, limit: LossBase) -> None:
    policy = scores([-1.0, -9.0], [-3.0, -2.0], (4, 2))
    reference = scores([-1.5, -8.0], [-2.5, -4.0], (4, 2))
    found = loss(policy, reference_of(loss, reference)).loss
    expected = limit(policy, reference_of(limit, reference)).loss
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-15 if loss.name == "exo_pair" else 0, abs=0)


def test_alpha_divergences_lie_between_the_two_kl_divergences() -> None:
    policy, reference = scores([-1.0, -9.0], [-3.0, -2.0]), scores([-1.5, -8.0], [-2.5, -4.0])
    for alpha, limit in ((1e-9, FDPO(divergence="reverse_kl")), (1 - 1e-12, FDPO(divergence="forward_kl"))):
        found = FDPO(divergence="alpha", alpha=alpha)(policy, reference).loss
        assert torch.allclose(found, limit(policy, reference).loss, rtol=1e-6)


def test_losses_of_each_response_are_least_where_the_papers_say() -> None:
    changes = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    zero = [0.0] * 4001

    def best(loss: LossBase, *, of_chosen: bool) -> float:
        sides = (changes.tolist(), zero) if of_chosen else (zero, changes.tolist())
        return changes[loss(scores(*sides), scores(zero, zero)).loss.argmin()].item()

    assert best(NCAPair(), of_chosen=True) == pytest.approx(math.log(2) / 0.1, abs=0.01), "and rises no further"
    assert best(SPPOHard(), of_chosen=True) == pytest.approx(5)
    assert best(SPPOHard(), of_chosen=False) == pytest.approx(-5)
    for loss in (APOZero(), BCOPair()):
        assert (best(loss, of_chosen=True), best(loss, of_chosen=False)) == (20, -20)
    policy = scores([0.0], [-5.0])
    APODown()(policy, scores([0.0], [0.0])).loss.sum().backward()
    assert policy.chosen.value.grad is not None
    assert policy.chosen.value.grad.item() > 0, "the chosen response falls too"


@pytest.mark.parametrize(
    "loss", [AOT(beta=0.5, label_smoothing=0.1), AOTUnpaired(beta=0.5, label_smoothing=0.1)], ids=repr
)
def test_a_sorted_batch_has_one_loss_and_gradient_in_however_many_passes(loss: SortedBatch) -> None:
    chosen, rejected, tokens = [-5.0, -1.0, -9.0, -4.0], [-3.0, -2.0, -8.0, -7.0], torch.full((4,), 4)
    reference = scores([-4.5, -3.0, -6.0, -5.0], [-6.0, -1.0, -7.5, -4.0])
    whole = scores(chosen, rejected)
    margins, changes = torch.tensor(chosen) - torch.tensor(rejected), reference.chosen.value - reference.rejected.value
    if isinstance(loss, AOT):
        gaps = (whole.chosen.value - whole.rejected.value).sort().values - changes.sort().values
    else:
        sides = (getattr(whole, side).value - getattr(reference, side).value for side in ("chosen", "rejected"))
        gaps = torch.sub(*(side.sort().values for side in sides))
    expected = DPO(beta=0.5, label_smoothing=0.1)(
        PairScores(Score(gaps, tokens), Score(gaps * 0, tokens)), PairScores(*(Score(gaps * 0, tokens) for _ in "wl"))
    ).loss.sum()
    expected.backward()
    given = scores(chosen, rejected)
    columns = loss.batch_columns(given, reference)
    total = torch.zeros((), dtype=torch.float64)
    for part in (slice(0, 1), slice(1, 4)):
        policy, before = (
            PairScores(
                *(Score(side.value[part], tokens[part]) for side in (s.chosen, s.rejected)),
                {k: v[part] for k, v in columns.items()},
            )
            for s in (given, reference)
        )
        loss_of_pass = loss(policy, before).loss.sum()
        loss_of_pass.backward()
        total += loss_of_pass.detach()
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in ((given.chosen, whole.chosen), (given.rejected, whole.rejected)):
        assert ours.value.grad is not None
        assert theirs.value.grad is not None
        assert torch.allclose(ours.value.grad, theirs.value.grad, rtol=1e-12)
    assert margins.argsort().tolist() != changes.argsort().tolist(), "like orders would hide a mistake"


def test_a_batch_loss_without_its_batch_is_refused() -> None:
    with pytest.raises(DataError, match="reference_margin"):
        AOT()(POLICY, REFERENCE)


def test_a_mixture_is_built_from_its_text_and_is_the_weighted_sum() -> None:
    loss = loss_of("mix(0.8*dpo(beta=0.5) + bco_pair*0.2 + sft)", POLICY_LOSSES)
    assert loss == Mix(((DPO(beta=0.5), 0.8), (BCOPair(), 0.2), (SFT(), 1.0)))
    assert loss_of(repr(loss), POLICY_LOSSES) == loss
    parts = [part(POLICY, reference_of(part, REFERENCE)).loss.item() for part in (DPO(beta=0.5), BCOPair(), SFT())]
    found = loss(POLICY, REFERENCE)
    assert found.loss.item() == pytest.approx(0.8 * parts[0] + 0.2 * parts[1] + parts[2], rel=1e-12)
    assert found.chosen_reward.item() == pytest.approx(0.25), "the rewards of the first loss"
    assert not loss_of("mix(simpo() + sft())", POLICY_LOSSES).needs_reference
    assert loss_of("mix(wpo() + rpo_sq())", POLICY_LOSSES).needs == {"self_likelihood", "score_gap"}
    assert Mix(((DPO(beta=0.5), 0.8), (SFT(), 0.2)))(POLICY, REFERENCE).loss.item() == pytest.approx(0.3006, abs=5e-5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mix(dpo()*0 + sft())", "above 0"),
        ("mix(dpo()*-1)", "a weight that is not a number"),
        ("mix(dpo()*True)", "a weight that is not a number"),
        ("mix(dpo())*2", "is not one sum"),
        ("mix(dpo(), sft())", "is not one sum"),
        ("mix(2)", "not a call"),
        ("mix(dpo() - sft())", "not a call"),
        ("mix(dpo() + nope())", "unknown loss nope"),
        ("mix(dpo() + kto())", "evaluates the reference|unknown loss kto"),
        ("mix(dpo() + aot())", "sorts the whole batch"),
        ("mix(dpo() + mix(sft()))", "a mixture in a mixture"),
        ("mix(dpo() +", "not a constructor call"),
        ("sigmoid(beta=0.1)", r"TRL's sigmoid is dpo\(beta=0.1\)"),
        ("sigmoid_norm", "--weights"),
        ("kto_pair", "kto"),
        ("aot_pair", "aot_unpaired"),
        ("dpo(betta=1)", "beta"),
    ],
)
def test_texts_that_name_no_loss_are_refused_with_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        loss_of(text, POLICY_LOSSES | LIVE_REFERENCE_LOSSES)


def test_names_of_other_libraries_are_none_of_ours() -> None:
    assert not set(OTHER_NAMES) & set(POLICY_LOSSES | LIVE_REFERENCE_LOSSES | REWARD_LOSSES)


@pytest.mark.parametrize("log_p", [-1e4, -100.0, -20.0, -1.0, -0.7, -1e-2, -1e-4, -1e-6])
def test_log_odds_are_exact_in_float32_wherever_p_lies(log_p: float) -> None:
    """A plain log(1 − exp(log p)) is off by 4 % at −1e-6, and infinite closer to 0."""
    found = log_odds(torch.tensor(log_p))
    assert found.item() == pytest.approx(log_p - math.log(-math.expm1(log_p)), rel=1e-6)
    certain = torch.zeros((), requires_grad=True)
    log_odds(certain).backward()
    assert torch.isfinite(log_odds(certain))
    assert certain.grad is not None
    assert torch.isfinite(certain.grad)


def test_losses_at_the_reference() -> None:
    same = scores([-3.0, -100.0], [-7.0, -1.0])
    for loss in (DPO(), RobustDPO()):
        assert loss(same, same).loss.tolist() == pytest.approx([math.log(2)] * 2)


def test_a_negative_estimate_of_a_kl_counts_as_0() -> None:
    loss = KTO(beta=0.5, desirable_weight=2, undesirable_weight=3)
    below, zero = (loss(scores([-1.0], [-3.0], kl_estimate=kl_estimate), REFERENCE).loss for kl_estimate in (-5.0, 0.0))
    assert torch.equal(below, zero)
    assert zero.item() == pytest.approx((2 * sigmoid(-0.25) + 3 * sigmoid(-0.75)) / 2)


def test_weights_and_estimates_are_constants() -> None:
    """WPO's weight and KTO's estimate depend on the policy, and pass no gradient to it."""
    for loss in (WPO(), KTO()):
        policy = scores([-1.0], [-3.0])
        loss(policy, scores([-1.5], [-1.5])).loss.sum().backward()
        for given in (policy.chosen.self_likelihood, policy.rejected.self_likelihood, policy.columns["kl_estimate"]):
            assert given is not None
            assert given.grad is None
        assert policy.chosen.value.grad is not None


def test_smoothing_is_what_is_expected_of_flipped_labels() -> None:
    """cDPO: the mean over flips at rate ε. Robust DPO: its mean over flips is DPO on the clean label."""
    policy, reference = POLICY, REFERENCE
    flipped = tuple(s._replace(chosen=s.rejected, rejected=s.chosen) for s in (policy, reference))
    clean, wrong = DPO()(policy, reference).loss, DPO()(*flipped).loss
    assert torch.allclose(DPO(label_smoothing=0.2)(policy, reference).loss, 0.8 * clean + 0.2 * wrong)
    robust = RobustDPO(label_smoothing=0.2)
    assert torch.allclose(0.8 * robust(policy, reference).loss + 0.2 * robust(*flipped).loss, clean)


def test_reward_aware_losses_are_least_where_the_margin_is_the_datas() -> None:
    gap, beta = 0.8, 0.1
    margins = torch.linspace(-2, 20, 221, dtype=torch.float64)
    policy = scores((margins - 1).tolist(), [-1.0] * 221, gap=gap)
    reference = scores([-1.0] * 221, [-1.0] * 221)
    for loss in (RPOSquared(beta), RPOBackwardKL(beta), RPOForwardKL(beta)):
        found = loss(policy, reference).loss
        assert margins[found.argmin()].item() == pytest.approx(gap / beta, abs=1e-9)
        assert found.min().item() == pytest.approx(0, abs=1e-12)


def test_tdpo2_sends_no_gradient_through_the_chosen_divergence() -> None:
    for loss, reached in ((TDPO1(), True), (TDPO2(), False)):
        policy = scores([-1.0], [-3.0])
        loss(policy, scores([-1.5], [-1.5])).loss.sum().backward()
        assert policy.chosen.divergence is not None
        assert policy.rejected.divergence is not None
        assert (policy.chosen.divergence.grad is not None) == reached
        assert policy.rejected.divergence.grad is not None
        assert policy.rejected.divergence.grad.item() > 0, "straying along the rejected response costs"


def test_kto_takes_rows_with_one_response() -> None:
    """A row without a rejected response is a good example by itself, one without a chosen response a bad one."""
    value, none = torch.tensor([-1.0, 0.0]), torch.tensor([0.0, -3.0])
    policy = PairScores(
        Score(value, torch.tensor([4, 0])), Score(none, torch.tensor([0, 2])), {"kl_estimate": torch.tensor([0.2, 0.2])}
    )
    reference = PairScores(
        Score(torch.tensor([-1.5, 0.0]), policy.chosen.tokens), Score(torch.tensor([0.0, -1.5]), policy.rejected.tokens)
    )
    result = KTO(beta=0.5, desirable_weight=2, undesirable_weight=3)(policy, reference)
    assert result.loss.tolist() == pytest.approx([2 * sigmoid(-0.15), 3 * sigmoid(-0.85)])
    assert result.chosen_reward.tolist() == pytest.approx([0.25, 0])
    assert result.rejected_reward.tolist() == pytest.approx([0, -0.75])


@pytest.mark.parametrize("make", [TABLE[name] for name, loss in ALL.items() if "score_gap" in loss.needs])
def test_data_without_scores_is_refused_where_they_are_needed(make: type[LossBase]) -> None:
    with pytest.raises(DataError, match=f"{make.name} · needs a score of both responses"):
        make()(POLICY._replace(columns={}), REFERENCE)


@pytest.mark.parametrize(
    "call",
    [f"{name}(beta={beta})" for name, loss in ALL.items() if hasattr(loss, "beta") for beta in ("0", "-0.1")],
)
def test_a_beta_that_is_not_positive_is_refused(call: str) -> None:
    with pytest.raises(UsageError, match=r"beta must be above 0"):
        build(call, TABLE, "loss")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("dpo(label_smoothing=0.5)", "at 0.5 the labels carry no information"),
        ("robust(label_smoothing=-0.1)", "at 0.5"),
        ("bradley_terry(label_smoothing=0.7)", "at 0.5"),
        ("bradley_terry(center=-1)", "0 or more"),
        ("margin_bradley_terry(scale=0)", "above 0"),
        ("length_bradley_terry(alpha=1e999)", "finite"),
        ("simpo(gamma=-1)", "0 or more"),
        ("r_dpo(alpha=-1)", "0 or more"),
        ("dpop(penalty=-1)", "0 or more"),
        ("slic(delta=0)", "above 0"),
        ("bees(low=1, high=1)", "above low"),
        ("bees(low=-1e999)", "finite"),
        ("dpo(beta=1e999)", "finite"),
        ("kto(desirable_weight=0)", "above 0"),
        ("f_dpo(divergence='kl')", "expected reverse_kl, forward_kl, js, alpha"),
        ("f_dpo(alpha=1)", "between 0 and 1"),
        ("exo_pair(label_smoothing=0)", "above 0"),
        ("discopop(tau=2)", "at most 1"),
        ("aot(label_smoothing=0.5)", "no information"),
    ],
)
def test_settings_that_cannot_work_are_refused(call: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        build(call, TABLE, "loss")


def test_the_documentation_has_a_row_for_every_loss_with_its_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\(.*?\))` \|", text, flags=re.MULTILINE)
    assert sorted(rows) == sorted(repr(loss) for loss in ALL.values())
    assert f"selects one of {len(ALL) - 1} losses" in text  # sft is a command of its own


@pytest.mark.parametrize(
    ("command", "offered"),
    [("train_dpo", POLICY_LOSSES | LIVE_REFERENCE_LOSSES), ("train_reward", REWARD_LOSSES)],
)
def test_the_help_of_a_command_names_the_losses_it_offers(command: str, offered: dict[str, type[LossBase]]) -> None:
    source = (Path(__file__).parents[2] / "headwater" / "commands" / f"{command}.py").read_text(encoding="utf-8")
    said = re.search(r'loss: str = .*?"""(.*?)"""', source, flags=re.DOTALL)
    assert said is not None
    named = set(re.findall(r"\b[a-z_0-9]+\b", said[1])) & set(TABLE)
    assert named - {"sft"} == set(offered)  # sft is a part of mixtures
