"""Every-prefix training: the cuts of one forward pass are those of cut responses, and training on them pays."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.tokens import PairTokens
from headwater.errors import UsageError
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import reward_scores
from headwater.losses import BradleyTerry, MarginBradleyTerry, PairScores, Score
from headwater.results import runs
from headwater.results.evaluation import Diagnostics
from headwater.training.prefixes import PREFIX_LOSSES, PrefixScores, parse_cuts
from tests.conftest import random_pairs
from tests.support.commands import succeed

CUTS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))


def reward_model(pairs: Sequence[PairTokens]) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForSequenceClassification.from_config(config).double()
    return model.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("row_format", ["shared", "padded"])
def test_a_cut_of_one_pass_is_the_reward_of_the_response_cut_there(row_format: RowFormat) -> None:
    from headwater.forward.attention import TREES, attend_with

    pairs = random_pairs([(5, 12, 9), (3, 8, 17), (4, 1, 3)], 64)
    pairs[0] = pairs[0]._replace(rejected=np.concatenate([pairs[0].chosen[:4], pairs[0].rejected[:5]]))
    model = reward_model(pairs)
    attend_with(model, TREES if row_format == "shared" else "sdpa")
    found = PrefixScores(CUTS)(model, collate(pairs, row_format))
    attend_with(model, "sdpa")
    for column, cut in enumerate(CUTS):
        short = [
            pair._replace(chosen=pair.chosen[: max(1, int(cut * len(pair.chosen)))],
                          rejected=pair.rejected[: max(1, int(cut * len(pair.rejected)))])
            for pair in pairs
        ]  # fmt: skip
        expected = reward_scores(model, collate(short, "padded"))
        for side in ("chosen", "rejected"):
            one, other = getattr(found, side).value[:, column], getattr(expected, side).value
            assert torch.allclose(one, other, rtol=0, atol=1e-10)
    assert found.chosen.value.std() > 1e-3, "all alike: nothing tested"


def test_the_loss_of_a_pair_is_the_mean_over_its_cuts() -> None:
    torch.manual_seed(1)
    chosen, rejected, tokens = torch.randn(4, 3), torch.randn(4, 3), torch.ones(4)
    gap = torch.rand(4)
    scores = PairScores(Score(chosen, tokens), Score(rejected, tokens), {"score_gap": gap[:, None]})
    for name, plain in (("bradley_terry", BradleyTerry(center=0.1)), ("margin_bradley_terry", MarginBradleyTerry())):
        settings = {"center": 0.1} if name == "bradley_terry" else {}
        found = PREFIX_LOSSES[name](**settings)(scores, None)
        by_cut = [
            plain(PairScores(Score(chosen[:, k], tokens), Score(rejected[:, k], tokens), {"score_gap": gap}), None).loss
            for k in range(3)
        ]
        assert torch.allclose(found.loss, torch.stack(by_cut).mean(0))
        assert torch.equal(found.chosen_reward, chosen[:, -1])
        assert repr(PREFIX_LOSSES[name](**settings)) == repr(plain)


def test_cuts_are_read_exactly() -> None:
    assert parse_cuts("0.25,0.5,1.0") == CUTS
    assert parse_cuts("10%,100%") == (Fraction(1, 10), Fraction(1))
    for bad in ("0.5", "0.5,0.25", "0.5,0.5", "0,1", "8tok,1.0", "a,b"):
        with pytest.raises(UsageError):
            parse_cuts(bad)


def test_training_on_every_prefix_helps_beginnings_and_costs_whole_responses_nothing(tmp_path: Path) -> None:
    """The planted corpus: what decides lies in the first 30 % of the words, nearly all of it in the first quarter.

    Compared on the same held-out pairs: better at 25 %, the paired interval above 0; at 100 % not worse than 3 points.
    """
    reading.write(tmp_path / "train.jsonl", generate(Corpus(pairs=1000, seed=11)))
    reading.write(tmp_path / "test.jsonl", generate(Corpus(pairs=300, seed=12)))

    common = ["--data", tmp_path / "train.jsonl", "--model", "scratch(hidden=32, layers=2, vocab=512)"]
    common += ["--num-train-epochs", 3, "--precision", "fp32", "--learning-rate", "3e-3", "--eval-fraction", "0.02"]
    succeed("train-reward", *common, "--output", tmp_path / "whole")
    succeed("train-reward", *common, "--output", tmp_path / "prefixes", "--at", "0.25,0.5,1.0")
    differences = {}
    for keep in ("25%", "100%"):
        call = ["evaluate", "--dataset", tmp_path / "test.jsonl", "--allow-leakage", "--keep", keep]
        succeed(*call, "--model", tmp_path / "whole", "--output", tmp_path / f"whole-{keep}")
        against = ["--against", tmp_path / f"whole-{keep}"]
        succeed(*call, "--model", tmp_path / "prefixes", "--output", tmp_path / f"prefixes-{keep}", *against)
        differences[keep] = Diagnostics.read(tmp_path / f"prefixes-{keep}").baselines[0].difference
    accuracy = {
        name: runs.load(tmp_path / name).metrics["accuracy"]["value"] for name in ("whole-100%", "prefixes-25%")
    }
    assert accuracy["whole-100%"] > 0.75, "learnt nothing: nothing tested"
    assert differences["25%"].low > 0
    assert differences["100%"].value > -0.03
