"""A checkpoint is read whole, as what it is; whatever differs is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
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
from headwater.errors import ModelError, UsageError
from headwater.models import loading

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
Weights = dict[str, torch.Tensor]


def llama(tokenizer: Tokenizer, **more: Any) -> Any:
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return transformers.LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer), "initializer_range": 0.2, **ids, **more})


def saved(path: Path, tokenizer: Tokenizer, auto: Any, config: Any) -> Path:
    """Save a random model with its tokenizer."""
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def policy(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("policy") / "policy"
    return saved(home, tokenizer, transformers.AutoModelForCausalLM, llama(tokenizer))


@pytest.fixture(scope="module")
def reward(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reward") / "reward"
    return saved(home, tokenizer, transformers.AutoModelForSequenceClassification, llama(tokenizer, num_labels=1))


def changed(model: Path, target: Path, change: Callable[[Weights], object] | None = None, **config: Any) -> str:
    """Copy a model with other weights, or another configuration."""
    shutil.copytree(model, target)
    weights = load_file(target / "model.safetensors")
    if change is not None:
        found = change(weights)
        weights = found if isinstance(found, dict) else weights
        save_file(weights, target / "model.safetensors", {"format": "pt"})
    settings = json.loads((target / "config.json").read_text())
    settings = {key: value for key, value in {**settings, **config}.items() if value is not ...}
    (target / "config.json").write_text(json.dumps(settings))
    return str(target)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 40)[None]).logits
    return found


def without(name: str) -> Callable[[Weights], object]:
    return lambda weights: weights.pop(name)


def with_more(name: str, *shape: int) -> Callable[[Weights], object]:
    return lambda weights: weights.update({name: torch.ones(shape)})


def one_longer(name: str) -> Callable[[Weights], object]:
    return lambda weights: weights.update({name: torch.cat([weights[name], weights[name][:1]])})


BIAS = {f"model.layers.{layer}.self_attn.{name}_proj.bias": torch.zeros(32) for layer in (0, 1) for name in "qkv"}
DAMAGED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "a layer's weight": (without("model.layers.1.mlp.up_proj.weight"), r"lacks 1 of its .*layers\.1\.mlp\.up_proj"),
    "a norm": (without("model.norm.weight"), r"lacks 1 of its weights: model\.norm\.weight"),
    "an untied output": (without("lm_head.weight"), r"lacks 1 of its weights: lm_head\.weight"),
    "embeddings": (without("model.embed_tokens.weight"), r"lacks 1 of its weights: model\.embed_tokens"),
    "all": (lambda weights: {"x": torch.ones(2)}, r"lacks \d+ of its weights: lm_head.weight, .* and \d+ more; has 1"),
    "an extra layer": (
        with_more("model.layers.2.mlp.up_proj.weight", 48, 32),
        r"has 1 .* no place for: model\.layers\.2",
    ),
    "Qwen2's biases": (lambda weights: weights.update(BIAS), r"has 6 weights that its model has no place for: .*bias"),
    "a value head": (with_more("v_head.summary.weight", 1, 32), r"v_head\.summary\.weight · a value head \(TRL"),
    "longer embeddings": (one_longer("model.embed_tokens.weight"), r"embed_tokens\.weight is \[\d+, 32\] in the file"),
    "8 bits": (
        lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"].to(torch.int8)}),
        r"has 1 weights stored as I8: lm_head\.weight",
    ),
    "fp8": (
        lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"].to(torch.float8_e4m3fn)}),
        r"has 1 weights stored as F8_E4M3: lm_head\.weight",
    ),
    "adapters inside": (with_more("model.layers.0.mlp.up_proj.lora_A.default.weight", 4, 32), r"merge them"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_weights_that_differ_from_the_model_are_named(case: str, policy: Path, tmp_path: Path) -> None:
    change, problem = DAMAGED[case]
    with pytest.raises(ModelError, match=problem):
        loading.load(changed(policy, tmp_path / "model", change), "policy", (), 1)


def test_a_finished_reward_model_has_its_head(reward: Path, tmp_path: Path) -> None:
    model = changed(reward, tmp_path / "model", without("score.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 of its weights: score\.weight · its rewards would be random"):
        loading.load(model, "reward", (), 1)


@pytest.mark.parametrize("case", ["policy", "headless"])
def test_training_gets_a_new_head_and_says_so(
    case: str, policy: Path, reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(policy) if case == "policy" else changed(reward, tmp_path / "model", without("score.weight"))
    one, other = (loading.load(model, "reward", (), seed, new_head=True).model for seed in (7, 8))
    assert not torch.equal(one.score.weight, other.score.weight)
    assert "score head: new, seed 7" in capsys.readouterr().err
    expected = load_file(Path(model) / "model.safetensors")["model.norm.weight"]
    assert torch.equal(one.model.norm.weight.cpu(), expected)


def test_training_keeps_a_finished_head(reward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = loading.load(str(reward), "reward", (), 7, new_head=True).model
    assert torch.equal(model.score.weight.cpu(), load_file(reward / "model.safetensors")["score.weight"])
    assert "score head" not in capsys.readouterr().err


@pytest.mark.parametrize("case", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_new_head_excuses_no_other_weight(case: str, policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"lacks 1 of its weights: {case}"):
        loading.load(changed(policy, tmp_path / "model", without(case)), "reward", (), 1, new_head=True)


def renamed(put: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {put(key): tensor for key, tensor in weights.items()}


WRAPPED = {
    "torch.compile": lambda key: f"_orig_mod.{key}",
    "layers compiled": lambda key: key.replace("layers.0.", "layers.0._orig_mod.").replace(
        "layers.1.", "layers.1._orig_mod."
    ),
    "DDP": lambda key: f"module.{key}",
    "both": lambda key: f"module._orig_mod.{key}",
    "FSDP": lambda key: "_fsdp_wrapped_module." + key.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
    "a module around": lambda key: f"model.{key}",
    "peft": lambda key: f"base_model.model.{key}",
    "TRL": lambda key: f"pretrained_model.{key}",
}


@pytest.mark.parametrize("case", WRAPPED)
def test_names_that_wrappers_changed_are_read(case: str, policy: Path, tmp_path: Path) -> None:
    expected = loading.load(str(policy), "policy", (), 1).model
    name = changed(policy, tmp_path / "model", renamed(WRAPPED[case]))
    found = loading.load(name, "policy", (), 1).model
    assert torch.equal(logits(found), logits(expected))
    assert found.generation_config.eos_token_id == expected.generation_config.eos_token_id
    found.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(load_file(policy / "model.safetensors"))


def test_a_wrapped_checkpoint_is_read_whole_too(policy: Path, tmp_path: Path) -> None:
    def change(weights: Weights) -> Weights:
        weights.pop("model.norm.weight")
        return renamed(WRAPPED["torch.compile"])(weights)

    with pytest.raises(ModelError, match=r"lacks 1 of its weights: model\.norm\.weight"):
        loading.load(changed(policy, tmp_path / "model", change), "policy", (), 1)


def test_a_wrapped_reward_model_keeps_its_head(reward: Path, tmp_path: Path) -> None:
    name = changed(reward, tmp_path / "model", renamed(WRAPPED["torch.compile"]))
    expected = logits(loading.load(str(reward), "reward", (), 1).model)
    assert torch.equal(logits(loading.load(name, "reward", (), 1).model), expected)
    assert torch.equal(logits(loading.load(name, "reward", (), 1, new_head=True).model), expected)


def test_what_transformers_knows_to_be_no_fault_is_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    auto, ids = transformers.AutoModelForCausalLM, {"vocab_size": len(tokenizer)}
    tied = saved(tmp_path / "tied", tokenizer, auto, llama(tokenizer, tie_word_embeddings=True))
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    loading.load(str(tied), "policy", (), 1)
    old = with_more("model.layers.0.self_attn.rotary_emb.inv_freq", 8)
    loading.load(changed(tied, tmp_path / "old", old), "policy", (), 1)
    gpt2 = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64, **ids)
    mask = with_more("transformer.h.0.attn.bias", 1, 1, 64, 64)
    loading.load(changed(saved(tmp_path / "g", tokenizer, auto, gpt2), tmp_path / "gpt2", mask), "policy", (), 1)
    half = load_file(tied / "model.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        name = changed(tied, tmp_path / str(dtype), lambda _, to=dtype: {k: v.to(to) for k, v in half.items()})
        model = loading.load(name, "policy", (), 1).model
        assert model.dtype == torch.float32
        assert torch.equal(model.model.norm.weight.cpu(), half["model.norm.weight"].to(dtype).float())


def test_two_different_embeddings_are_not_tied_whatever_the_configuration_says(policy: Path, tmp_path: Path) -> None:
    model = loading.load(changed(policy, tmp_path / "m", tie_word_embeddings=True), "policy", (), 1).model
    assert torch.equal(logits(model), logits(loading.load(str(policy), "policy", (), 1).model))
    assert not model.config.tie_word_embeddings


OTHER_KINDS = {
    "LlamaForTokenClassification": "which gives every token a label",
    "Qwen2ForRewardModel": "is a Qwen2ForRewardModel · expected",
}


@pytest.mark.parametrize("architecture", OTHER_KINDS)
def test_other_heads_are_no_rewards(architecture: str, reward: Path, tmp_path: Path) -> None:
    name = changed(reward, tmp_path / "model", architectures=[architecture])
    for ask in (loading.head_of, lambda name: loading.load(name, "reward", (), 1)):
        with pytest.raises(ModelError, match=OTHER_KINDS[architecture]):
            ask(name)


def test_a_checkpoint_is_read_as_what_it_is(policy: Path, reward: Path) -> None:
    with pytest.raises(ModelError, match=r"is a reward model .* expected a policy.* train-reward trains it on"):
        loading.load(str(reward), "policy", (), 1)
    with pytest.raises(
        ModelError, match=r"is a policy .* expected a finished reward model · make one of it with train-"
    ):
        loading.load(str(policy), "reward", (), 1)


def test_a_configuration_without_an_architecture_is_known_by_its_weights(
    policy: Path, reward: Path, tmp_path: Path
) -> None:
    for model, head in ((policy, "policy"), (reward, "reward")):
        name = changed(model, tmp_path / head, architectures=...)
        assert loading.head_of(name) == head
        loading.load(name, head, (), 1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def several(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("several") / "several"
    return saved(home, tokenizer, transformers.AutoModelForSequenceClassification, llama(tokenizer, num_labels=3))


def test_of_several_outputs_one_is_named(several: Path, reward: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has 3 outputs \(0 LABEL_0, .* --reward-head 0 to 2"):
        loading.load(str(several), "reward", (), 1)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(several)
    for index in range(3):
        model = loading.load(str(several), "reward", (), 1, reward_head=index).model
        assert torch.allclose(logits(model)[:, 0], logits(whole)[:, index], rtol=0, atol=1e-6)
        assert model.config.num_labels == 1
    model.save_pretrained(tmp_path / "one")
    assert load_file(tmp_path / "one" / "model.safetensors")["score.weight"].shape == (1, 32)
    for name, index in ((several, 3), (several, -1), (reward, 1)):
        with pytest.raises(UsageError, match=f"--reward-head {index}"):
            loading.load(str(name), "reward", (), 1, reward_head=index)
    assert loading.load(str(reward), "reward", (), 1, reward_head=0).model.config.num_labels == 1


def test_commands_name_the_output(several: Path, corpus: list[Preference], tmp_path: Path) -> None:
    reading.write(tmp_path / "pairs.jsonl", corpus[:12])
    uses = {
        "score": ["--input", "PAIRS"],
        "evaluate": ["--dataset", "PAIRS"],
        "signal": ["PAIRS"],
        "lens": ["PAIRS"],
        "train-reward": ["--data", "PAIRS", "--precision", "fp32", "--eval-fraction", "0"],
    }
    for command, flags in uses.items():
        call = [command, *(str(tmp_path / "pairs.jsonl") if flag == "PAIRS" else flag for flag in flags)]
        call += ["--model", str(several), "--output", str(tmp_path / f"{command}.jsonl")]
        assert cli.main(call) == 4
        assert cli.main([*call, "--reward-head", "2"]) == 0


def test_one_output_of_an_encoder_s_head(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = transformers.RobertaConfig(**SIZES, vocab_size=len(tokenizer), num_labels=2, max_position_embeddings=70)
    home = saved(tmp_path / "roberta", tokenizer, transformers.AutoModelForSequenceClassification, config)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(home)
    model = loading.load(str(home), "reward", (), 1, reward_head=1).model
    assert torch.allclose(logits(model)[:, 0], logits(whole)[:, 1], rtol=0, atol=1e-6)


ENCODERS: dict[str, tuple[Any, Any]] = {
    "bert": (transformers.BertConfig, transformers.BertForPreTraining),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForMaskedLM),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForMaskedLM),
    "electra": (transformers.ElectraConfig, transformers.ElectraForPreTraining),
    "deberta": (transformers.DebertaV2Config, transformers.DebertaV2ForMaskedLM),
    "modernbert": (transformers.ModernBertConfig, transformers.ModernBertForMaskedLM),
    "albert": (transformers.AlbertConfig, transformers.AlbertForMaskedLM),
    "bare bert": (transformers.BertConfig, transformers.BertModel),
    "bare llama": (transformers.LlamaConfig, transformers.LlamaModel),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "gpt_neox": (transformers.GPTNeoXConfig, transformers.GPTNeoXForCausalLM),
}


@pytest.mark.parametrize("case", ENCODERS)
def test_a_reward_model_is_trained_from_what_was_pretrained_with_another_head(
    case: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config, auto = ENCODERS[case]
    made = auto(config(**SIZES, vocab_size=len(tokenizer), pad_token_id=0))
    made.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = loading.load(str(tmp_path / "base"), "reward", (), 1, new_head=True).model
    own, theirs = model.base_model.state_dict(), made.base_model.state_dict()
    assert all(torch.equal(own[key].cpu(), theirs[key]) for key in own if not key.startswith("pooler."))
    weights = load_file(tmp_path / "base" / "model.safetensors")
    # An output head may have a part called layer_norm.
    lost = next(
        key for key in weights if re.search(r"layers?\.0\.|layer_groups|h\.0\.", key) and key.endswith("weight")
    )
    broken = changed(tmp_path / "base", tmp_path / "broken", without(lost))
    with pytest.raises(ModelError, match="lacks 1 of its weights"):
        loading.load(broken, "reward", (), 1, new_head=True)


def shard(model: Path, target: Path) -> dict[str, str]:
    """Copy a model in several files, and return its index."""
    shutil.copytree(model, target)
    (target / "model.safetensors").unlink()
    transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(target, max_shard_size="20KB")
    found: dict[str, str] = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    return found


def test_shards_are_all_there_and_as_their_index_says(policy: Path, tmp_path: Path) -> None:
    home = tmp_path / "shards"
    named = shard(policy, home)
    expected = logits(loading.load(str(policy), "policy", (), 1).model)
    assert torch.equal(logits(loading.load(str(home), "policy", (), 1).model), expected)
    index = (home / "model.safetensors.index.json").read_text()
    first = sorted(set(named.values()))[0]

    lying = {**named, "model.norm.weight": first if named["model.norm.weight"] != first else "x"}
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": lying}))
    with pytest.raises(ModelError, match=r"names 1 weights that are not in their files: model\.norm\.weight"):
        loading.load(str(home), "policy", (), 1)
    (home / "model.safetensors.index.json").write_text(index)

    shutil.copy(policy / "model.safetensors", home / "model.safetensors")
    with pytest.raises(ModelError, match="two sets of weights"):
        loading.load(str(home), "policy", (), 1)
    (home / "model.safetensors").unlink()

    weights, more = load_file(home / first), load_file(home / named["model.norm.weight"])
    save_file({**weights, "model.norm.weight": more["model.norm.weight"]}, home / first, {"format": "pt"})
    with pytest.raises(ModelError, match=r"two files hold model\.norm\.weight"):
        loading.load(str(home), "policy", (), 1)

    (home / first).unlink()
    with pytest.raises(ModelError, match=rf"1 of \d+ files of weights are missing: {first}"):
        loading.load(str(home), "policy", (), 1)
    (home / "model.safetensors.index.json").write_text("[")
    with pytest.raises(ModelError, match="is not an index of weights"):
        loading.load(str(home), "policy", (), 1)


def test_other_files_than_safetensors_are_refused_with_what_to_do(policy: Path, tmp_path: Path) -> None:
    home = Path(changed(policy, tmp_path / "model"))
    torch.save(load_file(home / "model.safetensors"), home / "pytorch_model.bin")
    (home / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model\.bin\).*save it with transformers"):
        loading.load(str(home), "policy", (), 1)
    (home / "pytorch_model.bin").rename(home / "model-q4.gguf")
    with pytest.raises(ModelError, match=r"no weights in it · .*name the GGUF file in it: .*model-q4\.gguf"):
        loading.load(str(home), "policy", (), 1)
    (home / "model-q4.gguf").unlink()
    with pytest.raises(ModelError, match="no weights in it"):
        loading.load(str(home), "policy", (), 1)
    (home / "model.safetensors").write_bytes((policy / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cannot be loaded|is damaged"):
        loading.load(str(home), "policy", (), 1)


def test_quantised_weights_are_refused_with_the_reason(policy: Path, tmp_path: Path) -> None:
    for method in ("fp8", "gptq", "bitsandbytes", "mxfp4"):
        name = changed(policy, tmp_path / method, quantization_config={"quant_method": method, "bits": 4})
        with pytest.raises(ModelError, match=rf"has quantised weights \({method}\)"):
            loading.load(name, "policy", (), 1)


def test_a_folder_around_a_model_names_what_is_inside(policy: Path, tmp_path: Path) -> None:
    shutil.copytree(policy, tmp_path / "run" / "checkpoint-500")
    loading.load(str(tmp_path / "run" / "checkpoint-500"), "policy", (), 1)
    with pytest.raises(ModelError, match=r"holds no model itself · name .*checkpoint-500"):
        loading.head_of(str(tmp_path / "run"))
    (tmp_path / "other" / "checkpoint-40").mkdir(parents=True)
    save_file({"x": torch.ones(1)}, tmp_path / "other" / "checkpoint-40" / "state.safetensors")
    with pytest.raises(ModelError, match="is a training checkpoint, not a model"):
        loading.head_of(str(tmp_path / "other" / "checkpoint-40"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_buffer_that_is_not_finite_is_found(value: float, policy: Path) -> None:
    loaded = loading.load(str(policy), "policy", (), 1).model
    loaded.register_buffer("scale", torch.tensor([1.0, value]))
    with pytest.raises(ModelError, match="not finite in scale"):
        loading._check_finite(loaded, "it")
