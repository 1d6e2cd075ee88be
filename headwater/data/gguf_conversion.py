"""Convert a GGUF file to a folder with a model in safetensors, its tokenizer and its chat template.

transformers reads the file, dequantises its weights and builds the tokenizer. Weights are written in float32, which
holds every dequantised value exactly. What transformers would change without saying so is restored here.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from headwater.errors import ModelError, first_line

ORIGINAL = "name the model in its original form, a folder or hub name with safetensors"
SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Ways of splitting texts (`tokenizer.ggml.pre`) that are GPT-2's, after every digit has been split off."""


def convert(file: Path, folder: Path) -> None:
    """Write the model, tokenizer and chat template of a GGUF file to an existing folder.

    Errors: `ModelError` for a file that transformers cannot read.
    """
    import torch
    import transformers

    with contextlib.redirect_stderr(io.StringIO()):  # bars of tqdm, which no setting of transformers turns off
        read, tokenizer = _read(file)
        config = read.config
        del config.quantization_config  # transformers would refuse to save the model, and others to load it
        config.__dict__.pop("_model_name_or_path", None)
        model = type(read)(config).to(torch.float32)
        model.load_state_dict(read.state_dict())
        model.generation_config = transformers.GenerationConfig.from_model_config(config)
        model.save_pretrained(folder)
        tokenizer.init_kwargs = {key: value for key, value in tokenizer.init_kwargs.items() if "local" not in key}
        tokenizer.save_pretrained(folder)


def _read(file: Path) -> tuple[Any, Any]:
    """Return the model and the tokenizer of a file. Errors: `ModelError`."""
    import torch
    import transformers
    from transformers.integrations.gguf import read_gguf_metadata

    place: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        metadata, _ = read_gguf_metadata(str(file))
        config = transformers.AutoConfig.from_pretrained(**place, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **place, config=config, dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:  # a damaged file raises anything
        raise ModelError(str(file), f"cannot be read: {first_line(error)}", ORIGINAL) from error
    _restore_split(tokenizer, metadata.get("tokenizer.ggml.pre"))
    return model, tokenizer


def _restore_split(tokenizer: Any, name: str | None) -> None:
    """Set how texts are split before merging, where transformers takes GPT-2's way for another one."""
    from tokenizers import pre_tokenizers

    if name in SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, plain])
