"""Adapters (peft) as models: to train on, to score with, as a reference, a judge, a speaker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.tokenizers import Tokenizer
from headwater.errors import ModelError, NetworkError
from headwater.models import loading
from headwater.results import runs

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS = torch.arange(3, 40)[None]
CAUSAL, CLASSIFIER = transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def put_on(base: Path, target: Path, auto: Any = CAUSAL, change: Any = None, **settings: Any) -> torch.Tensor:
    """Save random adapters of a base, and return what both say."""
    torch.manual_seed(1)
    model = auto.from_pretrained(base, **({"num_labels": 1} if auto is CLASSIFIER else {}))
    if change is not None:
        change(model)
    task = "SEQ_CLS" if auto is CLASSIFIER else "CAUSAL_LM"
    lora = peft.get_peft_model(
        model, peft.LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": task, **settings})
    )
    for name, weight in lora.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.2)
    lora.save_pretrained(target)
    return logits(lora)


@pytest.fixture(scope="module")
def study(corpus: list[Preference], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    reading.write(root / "pairs.jsonl", corpus[:24])
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    for name, tied in (("base", False), ("tied", True)):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SIZES, **ids, vocab_size=len(tokenizer), tie_word_embeddings=tied)
        CAUSAL.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def adapter(study: Path) -> Path:
    put_on(study / "base", study / "adapter")
    return study / "adapter"


KINDS: dict[str, dict[str, Any]] = {
    "all linear": {},
    "the output": {"target_modules": ["lm_head", "q_proj"]},
    "embeddings": {"target_modules": ["embed_tokens"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "saved output": {"modules_to_save": ["lm_head"]},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "dora": {"use_dora": True},
    "bias": {"bias": "lora_only"},
}


@pytest.mark.parametrize("base", ["base", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_say_what_peft_has_them_say(kind: str, base: str, study: Path, tmp_path: Path) -> None:
    expected = put_on(study / base, tmp_path / "adapter", **KINDS[kind])
    found = loading.load(str(tmp_path / "adapter"), "policy", (), 1).model
    assert torch.allclose(logits(found), expected, rtol=0, atol=1e-5)
    found.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(CAUSAL.from_pretrained(tmp_path / "merged")), logits(found))


def test_the_adapter_of_a_reward_model_brings_its_head(study: Path, tmp_path: Path) -> None:
    for base in ("base", "tied"):
        expected = put_on(study / base, tmp_path / base, CLASSIFIER)
        assert loading.head_of(str(tmp_path / base)) == "reward"
        for new_head in (False, True):  # trained on, it keeps its head
            found = loading.load(str(tmp_path / base), "reward", (), 9, new_head=new_head).model
            assert torch.allclose(logits(found), expected, rtol=0, atol=1e-5)
        with pytest.raises(ModelError, match=r"is the adapter of a reward model .* train-reward trains it on"):
            loading.load(str(tmp_path / base), "policy", (), 1)


def test_the_adapter_of_a_policy_is_no_reward_model_but_for_training(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="is the adapter of a policy · expected a finished reward model"):
        loading.load(str(adapter), "reward", (), 1)
    found = loading.load(str(adapter), "reward", (), 1, new_head=True).model
    assert "score head: new, seed 1" in capsys.readouterr().err
    policy = loading.load(str(adapter), "policy", (), 1).model
    assert torch.equal(found.model.layers[0].mlp.up_proj.weight, policy.model.layers[0].mlp.up_proj.weight)


def test_a_relative_base_is_found_beside_the_adapter(study: Path, adapter: Path, tmp_path: Path) -> None:
    expected = logits(loading.load(str(adapter), "policy", (), 1).model)
    for place in ("base", "around/base", "around/adapter/base"):
        home = tmp_path / place.replace("/", "-")
        shutil.copytree(adapter, home / "around" / "adapter")
        target = home / "around" / "base" if place == "base" else home / place
        shutil.copytree(study / "base", target)
        write(home / "around" / "adapter", base_model_name_or_path="base")
        assert torch.equal(logits(loading.load(str(home / "around" / "adapter"), "policy", (), 1).model), expected)


def test_an_adapter_is_named_from_the_folder_around_it(
    study: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    call = ["score", "--input", "pairs.jsonl", "--model", "adapter", "--value", "log_prob"]
    assert cli.main([*call, "--output", str(tmp_path / "scored.jsonl")]) == 0


def write(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_an_adapter_of_an_adapter(adapter: Path, tmp_path: Path, study: Path) -> None:
    loading.load(str(adapter), "policy", (), 1).model.save_pretrained(tmp_path / "whole")
    expected = put_on(tmp_path / "whole", tmp_path / "second")
    write(tmp_path / "second", base_model_name_or_path=str(adapter))
    found = loading.load(str(tmp_path / "second"), "policy", (), 1).model
    assert torch.allclose(logits(found), expected, rtol=0, atol=1e-5)


def test_embeddings_that_were_resized_come_with_the_adapter(study: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    longer = transformers.AutoTokenizer.from_pretrained(study / "base")
    longer.add_tokens(["<|extra|>", "<|more|>"])
    for base in ("base", "tied"):
        home = tmp_path / base
        expected = put_on(study / base, home, change=lambda model: model.resize_token_embeddings(len(longer)))
        longer.save_pretrained(home)
        found = loading.load(str(home), "policy", (), 1)
        assert torch.allclose(logits(found.model), expected, rtol=0, atol=1e-5)
        assert len(found.tokenizer) == found.model.get_input_embeddings().weight.shape[0]


def lose(adapter: Path, change: Any) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


PREFIX = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
REFUSED: dict[str, tuple[Any, str]] = {
    "no base named": (lambda home: write(home, base_model_name_or_path=None), "names no base model"),
    "a base that is not there": (
        lambda home: write(home, base_model_name_or_path="../lost/base"),
        r"is an adapter of ../lost/base · there is no such folder",
    ),
    "prompt tuning": (lambda home: write(home, peft_type="PREFIX_TUNING"), "of kind PREFIX_TUNING, which changes no"),
    "another task": (lambda home: write(home, task_type="TOKEN_CLS"), "is an adapter for TOKEN_CLS"),
    "a weight less": (lambda home: lose(home, lambda weights: weights.pop(PREFIX)), rf"lacks 1 weights: {PREFIX}"),
    "a weight more": (
        lambda home: lose(home, lambda weights: weights.update({PREFIX.replace("0", "7"): torch.ones(4, 32)})),
        r"its base has no place for 1 weights: .*layers\.7",
    ),
    "another size": (
        lambda home: lose(home, lambda weights: weights.update({PREFIX: torch.ones(4, 64)})),
        "does not fit its base: size mismatch",
    ),
    "no weights": (lambda home: (home / "adapter_model.safetensors").unlink(), "is an adapter without weights"),
    "pickled weights": (
        lambda home: (home / "adapter_model.safetensors").rename(home / "adapter_model.bin"),
        r"has pickled weights \(adapter_model.bin\)",
    ),
    "damaged weights": (
        lambda home: (home / "adapter_model.safetensors").write_bytes(b"x" * 100),
        "is an adapter that cannot be read",
    ),
    "damaged configuration": (lambda home: (home / "adapter_config.json").write_text("{"), "JSON"),
    "a whole model beside": (
        lambda home: save_file({"x": torch.ones(1)}, home / "model.safetensors"),
        "holds a whole model .* and an adapter",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_reason(case: str, adapter: Path, tmp_path: Path) -> None:
    change, problem = REFUSED[case]
    shutil.copytree(adapter, tmp_path / "adapter")
    change(tmp_path / "adapter")
    with pytest.raises(ModelError, match=problem):
        loading.load(str(tmp_path / "adapter"), "policy", (), 1)


def test_a_base_that_the_hub_does_not_give_is_named(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    write(tmp_path / "adapter", base_model_name_or_path="nobody/nothing")
    with pytest.raises((ModelError, NetworkError), match="nobody/nothing"):
        loading.load(str(tmp_path / "adapter"), "policy", (), 1)


def test_a_damaged_base_is_named_with_the_adapter(adapter: Path, study: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    shutil.copytree(study / "base", tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    write(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "broken"))
    with pytest.raises(ModelError, match=r"is an adapter of .*broken · .*lacks 1 of its weights: model\.norm"):
        loading.load(str(tmp_path / "adapter"), "policy", (), 1)


USES = {
    "train-dpo": ["train-dpo", "--data", "PAIRS", "--model", "ADAPTER", "--precision", "fp32"],
    "train-dpo on": ["train-dpo", "--data", "PAIRS", "--model", "ADAPTER", "--lora-r", "4", "--precision", "fp32"],
    "train-reward": ["train-reward", "--data", "PAIRS", "--model", "ADAPTER", "--precision", "fp32"],
    "score": ["score", "--input", "PAIRS", "--model", "ADAPTER", "--value", "log_prob"],
    "evaluate": ["evaluate", "--dataset", "PAIRS", "--model", "BASE", "--reference", "ADAPTER"],
    "signal": ["signal", "PAIRS", "--model", "ADAPTER", "--reference", "BASE"],
    "lens": ["lens", "PAIRS", "--model", "ADAPTER", "--reference", "BASE", "--pairs", "5"],
    "decode": [
        "decode",
        "--input",
        "PAIRS",
        "--model",
        "ADAPTER",
        "--reference",
        "BASE",
        "--strategy",
        "interpolate(weight=0.5)",
        "--max-new-tokens",
        "4",
        "--limit",
        "4",
    ],
}


@pytest.mark.parametrize("use", USES)
def test_every_command_takes_an_adapter_for_a_model(use: str, study: Path, adapter: Path, tmp_path: Path) -> None:
    names = {"PAIRS": study / "pairs.jsonl", "ADAPTER": adapter, "BASE": study / "base"}
    out = tmp_path / ("out.jsonl" if use == "score" else "out")
    assert cli.main([str(names.get(flag, flag)) for flag in USES[use]] + ["--output", str(out)]) == 0
    if use == "train-dpo on":
        assert runs.load(out).facts["reference"] == str(adapter)
        assert not (out / "adapter").exists(), "its base lies nowhere"
        assert cli.main(["evaluate", "--model", str(out), "--dataset", str(study / "pairs.jsonl")]) == 0
