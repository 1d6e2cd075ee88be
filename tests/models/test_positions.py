"""How many tokens a model reads is found in its tables of positions, and bounds what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.errors import UsageError
from headwater.models.positions import fit, limit_of, readable
from headwater.results import runs

GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OPT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
BART = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
XGLM = {"d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 16}
PADDED = {"max_position_embeddings": 42, "pad_token_id": 1}  # two positions come before the first token
MODELS: dict[str, tuple[Any, dict[str, Any], int | None]] = {
    "gpt2": (transformers.GPT2Config, {"n_positions": 40, **GPT}, 40),
    "gpt_bigcode": (transformers.GPTBigCodeConfig, {"n_positions": 40, **GPT}, 40),
    "openai-gpt": (transformers.OpenAIGPTConfig, {"n_positions": 40, **GPT}, 40),
    "gpt_neo": (
        transformers.GPTNeoConfig,
        {
            "max_position_embeddings": 40,
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "attention_types": [[["global"], 1]],
        },
        40,
    ),
    "gptj": (transformers.GPTJConfig, {"n_positions": 40, "rotary_dim": 4, **GPT}, 40),
    "codegen": (transformers.CodeGenConfig, {"n_positions": 40, "rotary_dim": 4, **GPT, "n_head": 4}, 40),
    "ctrl": (transformers.CTRLConfig, {"n_positions": 40, "dff": 16, **GPT}, 40),
    "opt": (transformers.OPTConfig, {"max_position_embeddings": 40, "word_embed_proj_dim": 16, **OPT}, 40),
    "biogpt": (transformers.BioGptConfig, {"max_position_embeddings": 40, **BERT}, 40),
    "bart": (transformers.BartConfig, {"max_position_embeddings": 40, "is_decoder": True, **BART}, 40),
    "pegasus": (transformers.PegasusConfig, {"max_position_embeddings": 40, "is_decoder": True, **BART}, 40),
    "bert-decoder": (transformers.BertConfig, {"max_position_embeddings": 40, "is_decoder": True, **BERT}, 40),
    "roberta-decoder": (transformers.RobertaConfig, {"is_decoder": True, **PADDED, **BERT}, 40),
    "xglm": (transformers.XGLMConfig, {"max_position_embeddings": 40, **XGLM}, None),
    "llama": (transformers.LlamaConfig, {"max_position_embeddings": 40, **BERT}, None),
    "bloom": (transformers.BloomConfig, {"hidden_size": 16, "n_layer": 1, "n_head": 2}, None),
    "mpt": (transformers.MptConfig, {"max_seq_len": 40, "d_model": 16, "n_heads": 2, "n_layers": 1}, 40),
    "mamba": (transformers.MambaConfig, {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}, None),
}
ENCODERS: dict[str, tuple[Any, dict[str, Any], int | None]] = {
    "bert": (transformers.BertConfig, {"max_position_embeddings": 40, **BERT}, 40),
    "distilbert": (
        transformers.DistilBertConfig,
        {"max_position_embeddings": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
        40,
    ),
    "roberta": (transformers.RobertaConfig, {**PADDED, **BERT}, 40),
    "electra": (transformers.ElectraConfig, {"max_position_embeddings": 40, "embedding_size": 16, **BERT}, 40),
    "mpnet": (transformers.MPNetConfig, {**PADDED, **BERT}, 40),
    "albert": (transformers.AlbertConfig, {"max_position_embeddings": 40, "embedding_size": 16, **BERT}, 40),
    "deberta": (transformers.DebertaV2Config, {"max_position_embeddings": 40, "relative_attention": True, **BERT}, 40),
    "deberta without": (
        transformers.DebertaV2Config,
        {"max_position_embeddings": 40, "relative_attention": True, "position_biased_input": False, **BERT},
        None,
    ),
    "modernbert": (transformers.ModernBertConfig, {"max_position_embeddings": 40, **BERT}, None),
}


def reads(model: Any, tokens: int) -> bool:
    try:
        with torch.no_grad():
            found = model.base_model(input_ids=torch.full((1, tokens), 7))[0]
    except (IndexError, RuntimeError):
        return False
    return bool(torch.isfinite(found).all())


@pytest.mark.parametrize("name", [*MODELS, *ENCODERS])
def test_the_limit_is_where_the_model_stops_to_read(name: str) -> None:
    config, sizes, limit = {**MODELS, **ENCODERS}[name]
    auto = transformers.AutoModelForCausalLM if name in MODELS else transformers.AutoModelForSequenceClassification
    model = auto.from_config(config(**{"vocab_size": 64, "pad_token_id": 0, **sizes})).eval()
    assert limit_of(model) == limit
    assert reads(model, limit or 130)
    if limit is not None:
        assert not reads(model, limit + 1)
        assert readable(model) == limit


def tiny(config: Any, tokenizer: Tokenizer, **sizes: Any) -> Any:
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    return transformers.AutoModelForCausalLM.from_config(config(**sizes, **ids, pad_token_id=tokenizer.pad_token_id))


def test_what_nobody_asked_for_is_what_all_models_read(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tiny(transformers.GPT2Config, tokenizer, n_positions=40, **GPT)
    other = tiny(transformers.GPT2Config, tokenizer, n_positions=4000, **GPT)
    assert fit(None, short, other) == 40
    assert "max length: 40 tokens, the number of positions of the model" in capsys.readouterr().err
    assert fit(None, other) == 2048
    assert fit(40, short) == 40
    assert fit(9000, tiny(transformers.LlamaConfig, tokenizer, **BERT)) == 9000
    assert not capsys.readouterr().err
    with pytest.raises(UsageError, match=r"--max-length 41 · the model has 40 positions · give 40"):
        fit(41, other, short)


@pytest.fixture(scope="module")
def positions(pairs: list[PairTokens]) -> int:
    """As many as half of the pairs need."""
    return sorted(len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs)[len(pairs) // 2]


@pytest.fixture(scope="module")
def study(
    corpus: list[Preference], positions: int, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Pairs, some of them longer than the positions of a GPT-2."""
    root = tmp_path_factory.mktemp("positions")
    reading.write(root / "pairs.jsonl", corpus)
    tiny(transformers.GPT2Config, tokenizer, n_positions=positions, **GPT).save_pretrained(root / "gpt2")
    tokenizer.save_pretrained(root / "gpt2")
    return root


COMMANDS = {
    "train-dpo": ["--data", "{pairs}", "--model", "{gpt2}", "--precision", "fp32"],
    "train-reward": ["--data", "{pairs}", "--model", "{gpt2}", "--precision", "fp32"],
    "evaluate": ["--dataset", "{pairs}", "--model", "{gpt2}", "--reference", "{gpt2}"],
    "score": ["--input", "{pairs}", "--model", "{gpt2}", "--value", "log_prob"],
    "signal": ["{pairs}", "--model", "{gpt2}", "--reference", "{gpt2}"],
    "divergence": ["--dataset", "{pairs}", "--model", "{gpt2}", "--reference", "{gpt2}"],
    "lens": ["{pairs}", "--model", "{gpt2}", "--reference", "{gpt2}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_keeps_to_the_positions(
    command: str, study: Path, positions: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out.jsonl" if command == "score" else "out")
    given = [part.format(pairs=study / "pairs.jsonl", gpt2=study / "gpt2") for part in COMMANDS[command]]
    whole = [command, *given, "--output", str(out)]
    assert cli.main([*whole, "--max-length", str(positions + 1)]) == 2
    assert f"the model has {positions} positions" in capsys.readouterr().err
    assert cli.main(whole) == 0
    assert f"max length: {positions} tokens, the number of positions of the model" in capsys.readouterr().err
    if command.startswith("train"):
        row_counts = runs.load(out).row_counts
        assert sum(stage["dropped"].get("too_long", 0) for stage in row_counts) > 0
