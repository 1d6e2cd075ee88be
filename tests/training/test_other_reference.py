"""`train-dpo --reference MODEL`: the loss is against that model, which the run names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headwater import cli
from headwater.results import runs
from tests.support.endings import CHATML, llama, tokenizer_of

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
TRAINING = ("--precision", "fp32", "--per-device-train-batch-size", "4")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies with random weights and one tokenizer, one of another vocabulary, and eight pairs."""
    place = tmp_path_factory.mktemp("study")
    for name, seed, more in (("policy", 0, ()), ("other", 1, ()), ("stranger", 0, ("<|new|>",))):
        tokenizer = tokenizer_of(CHATML, [*SPECIAL, *more], eos_token="<|im_end|>", pad_token="<|pad|>")
        model = llama(tokenizer)
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.data.normal_(std=0.3)
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    for name, asked in (("pairs", "Why"), ("held_out", "Is it")):
        rows = [
            {"prompt": f"{asked} {n}?", "chosen": f"The sky is {n}.", "rejected": "Eggs, " * (1 + n % 3)}
            for n in range(8)
        ]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def train(study: Path, output: Path, *flags: object, code: int = 0) -> Any:
    call = ["train-dpo", study / "pairs.jsonl", "--model", study / "policy", "--output", output, *TRAINING, *flags]
    call += [] if "--eval-data" in flags else ["--eval-fraction", 0]
    assert cli.main([str(part) for part in call]) == code
    return runs.load(output) if code == 0 else None


def test_the_loss_is_against_the_reference_that_is_named(study: Path, tmp_path: Path) -> None:
    """At a learning rate of almost 0 the held-out loss is that of the implicit rewards which `evaluate` gives."""
    flags = ("--eval-data", study / "held_out.jsonl", "--learning-rate", "1e-12")
    run = train(study, tmp_path / "run", "--reference", study / "other", *flags)
    assert run.facts["reference"] == str(study / "other")
    call = ["evaluate", study / "policy", study / "held_out.jsonl", "--reference", study / "other"]
    assert cli.main([*map(str, call), "--output", str(tmp_path / "e")]) == 0
    rewards = [(row["chosen_reward"], row["rejected_reward"]) for row in runs.load(tmp_path / "e").records()]
    margins = np.array([chosen - rejected for chosen, rejected in rewards])
    assert np.abs(margins).max() > 0.01
    assert run.metrics["eval_loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)


def test_the_policy_by_name_is_the_default_to_the_last_bit(study: Path, tmp_path: Path) -> None:
    runs_of = [train(study, tmp_path / "a", "--learning-rate", "1e-3")]
    runs_of.append(train(study, tmp_path / "b", "--learning-rate", "1e-3", "--reference", study / "policy"))
    runs_of.append(train(study, tmp_path / "c", "--learning-rate", "1e-3", "--reference", study / "other"))
    default, named, other = (load_file(run.path / "model.safetensors") for run in runs_of)
    assert all(torch.equal(default[name], named[name]) for name in default)
    assert not all(torch.equal(default[name], other[name]) for name in default)


@pytest.mark.parametrize("loss", ["tdpo1()", "kto()"])
def test_a_reference_that_takes_part_in_training(loss: str, study: Path, tmp_path: Path) -> None:
    own = train(study, tmp_path / "a", "--learning-rate", "1e-3", "--loss", loss)
    other = train(study, tmp_path / "b", "--learning-rate", "1e-3", "--loss", loss, "--reference", study / "other")
    assert other.history[0]["loss"] != own.history[0]["loss"]


@pytest.mark.parametrize(
    ("flags", "code", "problem"),
    [
        (("--reference", "other", "--loss", "simpo()"), 2, "has no effect: simpo"),
        (("--reference", "stranger"), 4, "differ in vocabulary"),
        (("--reference", "nothing"), 4, "nothing"),
    ],
)
def test_what_is_no_reference_is_refused(
    flags: tuple[str, ...], code: int, problem: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = flags[1:]
    train(study, tmp_path / "run", "--reference", study / name, *rest, code=code)
    assert problem in capsys.readouterr().err
