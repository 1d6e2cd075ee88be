"""What is saved is what was trained, and a saved model that is not is never called finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.tokenizers import Tokenizer
from headwater.models import loading, saving
from headwater.results import runs

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
FLAGS = [
    "--precision",
    "fp32",
    "--learning-rate",
    "5e-3",
    "--eval-fraction",
    "0.3",
    "--per-device-train-batch-size",
    "4",
]


@pytest.fixture(scope="module")
def study(corpus: list[Preference], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readback")
    reading.write(root / "pairs.jsonl", corpus[:24])
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    for name, tied in (("tied", True), ("untied", False)):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SIZES, **ids, vocab_size=len(tokenizer), tie_word_embeddings=tied)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


def train(study: Path, output: Path, model: str = "tied", command: str = "train-dpo", *flags: str) -> int:
    call = [command, "--data", str(study / "pairs.jsonl"), "--model", str(study / model), "--output", str(output)]
    return cli.main([*call, *FLAGS, *flags])


TARGETS = {"lm_head": [True, False], "embed_tokens": [False, True], "q_proj,lm_head,embed_tokens": [True, True]}
"""Modules that are adapted, and whether the output and the embeddings change by it."""


@pytest.mark.parametrize("targets", TARGETS)
def test_adapters_on_tied_embeddings_are_saved_as_they_were_trained(targets: str, study: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "evaluated"
    assert train(study, run, "tied", "train-dpo", "--lora-r", "4", "--lora-target-modules", targets) == 0
    before = load_file(study / "tied" / "model.safetensors")["model.embed_tokens.weight"]
    weights = load_file(run / "model.safetensors")
    changed = [not torch.equal(weights[name], before) for name in ("lm_head.weight", "model.embed_tokens.weight")]
    assert changed == TARGETS[targets]
    held_out = runs.load(run).metrics
    call = ["evaluate", "--model", str(run), "--dataset", str(study / "pairs.jsonl"), "--output", str(out)]
    assert cli.main(call) == 0
    judged = runs.load(out).metrics
    assert judged["accuracy"]["value"] == pytest.approx(held_out["eval_rewards/accuracies"])
    # Training sums log-probabilities in float32.
    assert judged["margin_mean"]["value"] == pytest.approx(held_out["eval_rewards/margins"], abs=5e-5)
    # The adapter alone, on its base, is the same model.
    alone, whole = (loading.load(str(path), "policy", (), 1).model for path in (run / "adapter", run))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(alone(ids).logits, whole(ids).logits, rtol=0, atol=1e-5)


def tie(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    del weights["lm_head.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))


def nudge(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 2
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def lose_template(path: Path) -> None:
    (path / "chat_template.jinja").write_text("{{ messages }}")


def lose_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})


BROKEN = {
    tie: "scores 3 pairs otherwise than the trained one",
    nudge: "scores 3 pairs otherwise than the trained one",
    lose_template: "has another chat template",
    lose_weight: r"lacks 1 of its weights: model.norm.weight",
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_model_that_is_saved_wrong_is_no_finished_run(
    damage: Any, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = saving.save

    def wrong(model: Any, tokenizer: Any, path: Path, *others: Any) -> None:
        save(model, tokenizer, path, *others)
        if path.name == "run":  # not the reference
            damage(path)

    monkeypatch.setattr(saving, "save", wrong)
    assert train(study, tmp_path / "run", "untied") == 4
    assert BROKEN[damage] in capsys.readouterr().err
    assert not (tmp_path / "run" / "done").exists()


WAYS = {
    "sft": ("tied", "train-sft"),
    "reward": ("untied", "train-reward"),
    "reward with adapters": ("tied", "train-reward", "--lora-r", "4"),
    "the best weights": ("untied", "train-reward", "--eval-steps", "2", "--early-stopping-patience", "1"),
    "bf16": ("untied", "train-dpo", "--precision", "bf16"),
    "a live reference": ("untied", "train-dpo", "--loss", "tdpo2()"),
    "members": ("untied", "train-reward", "--seeds", "2"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_training_reads_back_what_it_saved(way: str, study: Path, tmp_path: Path) -> None:
    if way == "bf16" and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor does not compute bf16 natively")
    model, command, *flags = WAYS[way]
    assert train(study, tmp_path / "run", model, command, *flags) == 0
    trained = tmp_path / "run"
    for run in [trained / "member-42", trained / "member-43"] if way == "members" else [trained]:
        found = runs.load(run).facts["read_back"]
        assert found["pairs"] == 3
        assert found["largest_difference"] <= (1e-5 if "adapters" in way else 1e-6)
    assert not any("_orig_mod" in key for key in load_file(next(trained.rglob("model.safetensors"))))
