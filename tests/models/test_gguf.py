"""GGUF files: read with the weights, positions, tokens and template that they hold, or refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import llama_cpp
from headwater import cli
from headwater.data import gguf_checks, gguf_conversion, gguf_files, reading, tokenizers
from headwater.data.corpus import Corpus, generate
from headwater.errors import ModelError, UsageError
from headwater.models import loading
from headwater.results import inputs, runs
from tests.support.serving import llama_server, save_policy, write_gguf

pytest.importorskip("gguf")
SCRATCH = "scratch(hidden=64, layers=2, vocab=400)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gguf")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=12, seed=3)))
    save_policy(root / "policy", list(reading.load(root / "pairs.jsonl").preferences), SCRATCH)
    write_gguf(root / "policy", root / "tiny.gguf")
    return root


def changed(folder: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Write the GGUF file once more, with what `change` adds to its header or tensors."""
    return write_gguf(folder / "policy", target, change)


def test_weights_tokens_and_template_are_those_of_the_original(folder: Path) -> None:
    ours = loading.load(str(folder / "tiny.gguf"), "policy", (), 0)
    theirs = loading.load(str(folder / "policy"), "policy", (), 0)
    before, after = theirs.model.state_dict(), ours.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert ours.model.lm_head.weight is ours.model.model.embed_tokens.weight
    for name in ("rope_parameters", "rms_norm_eps", "max_position_embeddings", "num_key_value_heads", "eos_token_id"):
        assert getattr(ours.model.config, name) == pytest.approx(getattr(theirs.model.config, name)), name
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    text = "x  12 34\n\n héllo <|im_end|> don't 🙂"
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    assert ours.tokenizer(text)["input_ids"] == theirs.tokenizer(text)["input_ids"]
    assert ours.model.name_or_path == str(folder / "tiny.gguf")


def test_a_file_is_converted_once_and_also_when_it_lies_alone_in_a_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "other.GGUF").write_bytes(b"")
    (tmp_path / "model" / "tiny.gguf").write_bytes((folder / "tiny.gguf").read_bytes())
    place = gguf_files.model_folder(str(folder / "tiny.gguf"))

    def again(*_: Path) -> None:
        raise AssertionError("converted twice")

    monkeypatch.setattr(gguf_conversion, "convert", again)
    monkeypatch.setattr(gguf_conversion, "write_tokenizer", again)
    assert gguf_files.model_folder(str(tmp_path / "model")) == place
    assert gguf_files.tokenizer_folder(str(tmp_path / "model" / "tiny.gguf")) == place
    assert gguf_files.model_folder(str(folder / "policy")) == str(folder / "policy")
    (tmp_path / "model" / "second.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="holds 2 GGUF files · name one of them"):
        gguf_files.model_folder(str(tmp_path / "model"))


def test_it_is_trained_with_adapters_against_itself_and_saved_as_any_model(folder: Path, tmp_path: Path) -> None:
    file, data = str(folder / "tiny.gguf"), str(folder / "pairs.jsonl")
    few = ("--limit", "8", "--batch-size", "4", "--eval-fraction", "0", "--learning-rate", "1e-2")
    line = ("train-dpo", data, "--model", file, "--lora-r", "2", "--output", str(tmp_path / "dpo"), *few)
    assert cli.main(line) == 0
    trained, before = (loading.load(name, "policy", (), 0).model for name in (str(tmp_path / "dpo"), file))
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(trained.state_dict()[query], before.state_dict()[query])
    merged = loading.load(str(tmp_path / "dpo" / "adapter"), "policy", (), 0).model
    for name, weight in trained.state_dict().items():
        assert torch.allclose(weight, merged.state_dict()[name], atol=1e-6), name
    assert runs.facts_of(tmp_path / "dpo")["reference"] == file
    scored = (
        "evaluate",
        str(tmp_path / "dpo"),
        data,
        "--output",
        str(tmp_path / "e"),
        "--allow-leakage",
        "--limit",
        "4",
    )
    assert cli.main(scored) == 0
    line = ("train-reward", data, "--model", file, "--output", str(tmp_path / "reward"), *few)
    assert cli.main(line) == 0
    assert loading.head_of(str(tmp_path / "reward")) == "reward" and loading.head_of(file) == "policy"


def test_llama_cpp_writes_the_same_greedy_tokens(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp is built for Linux on x86 only")
    loaded = loading.load(str(folder / "tiny.gguf"), "policy", (), 0)
    with llama_server(folder / "tiny.gguf", tmp_path / "log") as address:
        for prompt in llama_cpp.PROMPTS[:3]:
            found = llama_cpp.greedy(loaded, address, prompt, length=12)
            assert len(found.tokens) and all(gap < 1e-3 for gap in found.gaps), prompt
        ids = found.tokens[:5]
        theirs, outside = llama_cpp.nats_of_llama_cpp(address, ids, listed=400)
        assert outside == 0 and theirs == pytest.approx(llama_cpp.nats(loaded, ids), abs=1e-3)


# --- refused ------------------------------------------------------------------------------------------------------


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        gguf_files.model_folder(str(file))
    assert "\n" not in str(caught.value) and not list(gguf_files._place(file).glob("*"))
    return str(caught.value)


def test_a_damaged_file_is_refused(folder: Path, tmp_path: Path) -> None:
    content, file = (folder / "tiny.gguf").read_bytes(), tmp_path / "bad.gguf"
    file.write_bytes(content[:-1000])
    assert f"is cut off: {len(content) - 1000:,} bytes · expected " in refusal(file)
    file.write_bytes(content[:3000])
    assert "is damaged or cut off: " in refusal(file)
    file.write_bytes(b"PK" + content[2:])
    assert "is no GGUF file: it does not begin with GGUF · copy the file again" in refusal(file)
    file.write_bytes(content[:4] + b"\x09" + content[5:])
    assert "is damaged or cut off: " in refusal(file) and "GGUF v9" in refusal(file)


def parts(writer: Any) -> None:
    writer.add_uint16("split.count", 3)


def strange_split(writer: Any) -> None:
    writer.kv_data[0].pop("tokenizer.ggml.pre")
    writer.add_tokenizer_pre("deepseek-llm")


def strange_setting(writer: Any) -> None:
    writer.add_logit_scale(0.5)


def strange_positions(writer: Any) -> None:
    writer.add_rope_scaling_type(next(kind for kind in _rope_kinds() if kind.value == "longrope"))


def strange_divisors(writer: Any) -> None:
    writer.add_tensor("rope_freqs.weight", torch.linspace(1, 3, 16).numpy())


def more_tensors(writer: Any) -> None:
    writer.add_tensor("blk.0.attn_q.bias", torch.ones(64).numpy())


def _rope_kinds() -> Iterator[Any]:
    import gguf

    return iter(gguf.RopeScalingType)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (parts, "is one of 3 parts · expected a whole model · join them: llama-gguf-split --merge"),
        (strange_split, "splits texts in a way that is not known (tokenizer.ggml.pre: deepseek-llm)"),
        (strange_setting, "states llama.logit_scale = 0.5, which transformers does not read"),
        (strange_positions, "scales its positions in a way that is not converted (longrope)"),
        (strange_divisors, "scales its positions in a way that is not converted (rope_freqs.weight)"),
        (more_tensors, "holds 64 values more than a LlamaForCausalLM has"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_transformers_would_drop_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    assert message in refusal(changed(folder, tmp_path / "changed.gguf", change))


def test_an_architecture_that_is_not_converted_and_a_missing_package_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (folder / "tiny.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(content.replace(b"llama", b"lemma"))
    assert "GGUF model with architecture lemma is not supported yet" in refusal(tmp_path / "a.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "b.gguf").write_bytes(content + b" ")
    assert "the package gguf is not installed · install it: pip install gguf" in refusal(tmp_path / "b.gguf")


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"tin\.gguf · no such file or directory · did you mean .*tiny\.gguf\?"):
        inputs.check_model(str(folder / "tin.gguf"))
    inputs.check_model("bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf")
    with pytest.raises(ModelError, match=r"OWNER/NAME/FILE\.gguf on the hub"):
        tokenizers.load_tokenizer("nothing.gguf", ())


# --- restored -----------------------------------------------------------------------------------------------------


def test_digits_are_split_off_where_the_vocabulary_was_learnt_so(folder: Path, tmp_path: Path) -> None:
    def smollm(writer: Any) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.pre")
        writer.add_tokenizer_pre("smollm")

    tokenizer = tokenizers.load_tokenizer(str(changed(folder, tmp_path / "smollm.gguf", smollm)), ())
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x  12")
    assert [piece for piece, _ in split] == ["x", "ĠĠ", "1", "2"]


def test_scaled_positions_are_those_of_the_file(folder: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(hidden_size=128, num_attention_heads=2, max_position_embeddings=8192)
    start = {"general.architecture": "llama", "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    scaled = gguf_checks.with_positions(folder, start, {}, config)
    assert scaled.rope_parameters == {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    yarn = start | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.original_context_length": 2048}
    scaled = gguf_checks.with_positions(folder, yarn, {}, config)
    assert scaled.rope_parameters["original_max_position_embeddings"] == 2048
    with pytest.raises(ModelError, match="not converted"):
        gguf_checks.with_positions(folder, yarn | {"llama.rope.scaling.attn_factor": 0.5}, {}, config)


def test_the_divisors_of_llama_3_become_its_scaling(folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    own = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 32.0, **gguf_checks.LLAMA3}
    tiny = loading.load(str(folder / "tiny.gguf"), "policy", (), 0).model.config
    wanted = LlamaConfig.from_dict(tiny.to_dict() | {"rope_parameters": own})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](wanted)
    plain = 10000.0 ** (-torch.arange(0, 32, 2) / 32)

    def llama3(writer: Any) -> None:
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())

    file = changed(folder, tmp_path / "llama3.gguf", llama3)
    assert loading.load(str(file), "policy", (), 0).model.config.rope_parameters == pytest.approx(own)
