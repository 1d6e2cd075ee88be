"""Restore what transformers drops from a GGUF file without saying so, and refuse what cannot be restored.

It splits texts as GPT-2 does for every vocabulary that it does not know, reads neither the scaling of rotary positions
nor hyperparameters beyond its own list, and skips tensors that its model has no place for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.errors import ModelError

ORIGINAL = "name the model in its original form, a folder or hub name with safetensors"
SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Ways of splitting texts (`tokenizer.ggml.pre`) that are GPT-2's, after every digit has been split off."""
AS_GPT2 = frozenset({"gpt-2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "jais", "trillion", "granite-docling"})
FREQUENCIES = "rope_freqs.weight"
"""Tensor of Llama 3.1 and later: what the frequency of each pair of components is divided by."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Settings that all of Meta's models share; only the factor differs."""
TIED = ("falcon", "bloom")
"""Architectures that transformers always ties, also where the file holds the output layer."""
SAME = {
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
}
"""Hyperparameters that transformers may not read, and the attribute of its configuration that must have the value."""
HARMLESS = frozenset({"vocab_size", "tensor_data_layout", "rope.dimension_count", "attention.causal", "block_count"})


def check_split(file: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse a byte-level vocabulary whose way of splitting texts is not known. Errors: `ModelError`."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    name = metadata.get("tokenizer.ggml.pre")
    known = SINGLE_DIGITS | AS_GPT2 | set(GGUF_PRE_TOKENIZER_SPLITS)
    if metadata.get("tokenizer.ggml.model") == "gpt2" and name not in known:
        found = f"splits texts in a way that is not known (tokenizer.ggml.pre: {name})"
        raise ModelError(str(file), found, "its tokens would be others", ORIGINAL)


def as_stated(tokenizer: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the tokenizer with the tokens of the file alone, and with its way of splitting texts before merging.

    transformers adds `<|endoftext|>` to vocabularies without it, and splits as GPT-2 does where it knows no better.
    """
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    size = metadata["tokenizer.ggml.tokens"]
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < size]
    backend = Tokenizer.from_str(json.dumps(described))
    if metadata.get("tokenizer.ggml.model") == "gpt2" and metadata.get("tokenizer.ggml.pre") in SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, plain])
    roles = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    given = {name: token for name, token in roles.items() if token in backend.get_vocab()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **given)


def with_positions(file: Path, metadata: Mapping[str, Any], tensors: Mapping[str, int], config: Any) -> Any:
    """Return the configuration with the scaling of rotary positions that the file states. Errors: `ModelError`."""
    kind = metadata.get(f"{metadata['general.architecture']}.rope.scaling.type", "none")
    named = sorted(name for name in tensors if name.startswith("rope_"))
    if (kind == "none" and not named) or config.model_type == "gpt_oss":
        return config
    own = dict(getattr(config, "rope_parameters", None) or {})
    scaling = _llama3(file, config) if named == [FREQUENCIES] else None if named else _stated(metadata, kind)
    if not own or scaling is None:
        found = f"scales its positions in a way that is not converted ({', '.join(named) or kind})"
        raise ModelError(str(file), found, ORIGINAL)
    return type(config).from_dict(config.to_dict() | {"rope_parameters": own | scaling})


def _stated(metadata: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the scaling that the metadata state; None for one that transformers has no equal for."""
    start = f"{metadata['general.architecture']}.rope.scaling."
    given = {key.removeprefix(start): value for key, value in metadata.items() if key.startswith(start)}
    if kind == "linear" and set(given) <= {"type", "factor"}:
        return {"rope_type": "linear", "factor": given["factor"]}
    if kind == "yarn" and set(given) == {"type", "factor", "original_context_length"}:
        trained = given["original_context_length"]
        return {"rope_type": "yarn", "factor": given["factor"], "original_max_position_embeddings": trained}
    return None


def _llama3(file: Path, config: Any) -> dict[str, Any] | None:
    """Return the scaling of Llama 3.1 whose divisors are those in the file; None where they are others."""
    import torch
    from transformers.integrations.gguf import GgufHeader, load_gguf_state_dict
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    header = GgufHeader.from_file(str(file))
    divisors = load_gguf_state_dict(header)[FREQUENCIES][...].float()
    scaling = {"rope_type": "llama3", "factor": float(divisors.max()), **LLAMA3}
    own = config.rope_parameters | scaling
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](type(config).from_dict(config.to_dict() | {"rope_parameters": own}))
    plain = own["rope_theta"] ** (-torch.arange(0, 2 * len(scaled), 2) / (2 * len(scaled)))
    same = len(scaled) == len(divisors) and torch.allclose(plain / divisors, scaled, rtol=1e-4, atol=0.0)
    return scaling if same else None


def check_settings(file: Path, metadata: Mapping[str, Any], config: Any) -> None:
    """Refuse hyperparameters that transformers does not read, unless its model has these values. Errors: `ModelError`.

    Of architectures whose reader states all it knows, nothing is checked.
    """
    from transformers.integrations import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    architecture = metadata["general.architecture"]
    if architecture in GGUF_CONFIG_ARCHS:
        return
    # transformers writes some names with an underscore.
    read = GGUF_CONFIG_MAPPING.get(architecture, {}) | GGUF_CONFIG_MAPPING.get(config.model_type, {})
    read = {key for key, name in read.items() if name is not None} | HARMLESS
    for full, value in metadata.items():
        key = full.removeprefix(f"{architecture}.")
        if key == full or key in read or key.startswith("rope.scaling.") or _is_same(key, value, config):
            continue
        found = f"states {full} = {value}, which transformers does not read"
        raise ModelError(str(file), found, "the model would compute something else", ORIGINAL)


def _is_same(key: str, value: Any, config: Any) -> bool:
    """Return whether a model of this configuration has the value of a hyperparameter without being told."""
    if key not in SAME:
        return False
    own = getattr(config, SAME[key], None)
    if key.startswith("expert_"):
        return bool(value == (own or 0))
    if key == "attention.sliding_window" and value >= config.max_position_embeddings:
        return True
    if SAME[key] == "head_dim" and own is None:
        own = config.hidden_size // config.num_attention_heads
    return bool(own == value)


def check_tensors(file: Path, metadata: Mapping[str, Any], tensors: Mapping[str, int], model: Any) -> None:
    """Refuse a file with tensors that its model has no place for. Errors: `ModelError`."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    architecture = metadata["general.architecture"]
    if architecture in GGUF_CONFIG_ARCHS:  # whose reader reports what it does not use
        return
    unused = {name for name in tensors if name.startswith("rope_")}
    unused |= {"output.weight"} if architecture in TIED else set()
    held = {weight.data_ptr(): weight.numel() for weight in model.state_dict().values()}
    more = sum(count for name, count in tensors.items() if name not in unused) - sum(held.values())
    if more:
        found = f"holds {abs(more):,} values {'more' if more > 0 else 'fewer'} than a {type(model).__name__} has"
        raise ModelError(str(file), found, ORIGINAL)
