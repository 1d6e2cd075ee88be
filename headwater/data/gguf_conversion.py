"""Convert a GGUF file to a folder with a model in safetensors, its tokenizer and its chat template.

transformers reads the file, dequantises its weights and builds the tokenizer. Weights are written in float32, which
holds every dequantised value exactly. What transformers would change without saying so is restored (`gguf_checks`) or
refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.data import gguf_checks
from headwater.errors import ModelError, first_line
from headwater.files import is_full

INSTALL = "install it: pip install gguf"
AGAIN = "copy the file again"
ORIGINAL = "name the model in its original form, a folder or hub name with safetensors"


def convert(file: Path, folder: Path) -> None:
    """Write the model, tokenizer and chat template of a GGUF file to an existing folder.

    Errors: `ModelError` for a file that is damaged, one of several parts, or not converted by transformers, and
    without the package gguf.
    """
    metadata = _metadata(file)
    model = _model(file, metadata)
    write_tokenizer(file, folder)
    with _quiet(file):
        model.save_pretrained(folder)


def write_tokenizer(file: Path, folder: Path) -> None:
    """Write the tokenizer and chat template of a GGUF file to an existing folder. Errors: those of `convert`."""
    from transformers import PreTrainedTokenizerFast

    metadata = _metadata(file)
    gguf_checks.check_split(file, metadata)
    with _quiet(file):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        gguf_checks.as_stated(tokenizer, metadata).save_pretrained(folder)


def _metadata(file: Path) -> dict[str, Any]:
    """Return the entries of the file's header; of arrays of texts, their length. Errors: `ModelError`."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(str(file), "is a GGUF file, and the package gguf is not installed", INSTALL)
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ModelError(str(file), "is no GGUF file: it does not begin with GGUF", AGAIN)
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(file))
    except Exception as error:  # struct, numpy and the decoder each have their own
        raise ModelError(str(file), f"is damaged or cut off: {first_line(error)}", AGAIN) from error
    parts = metadata.get("split.count", 0)
    if parts > 1:
        fix = "join them: llama-gguf-split --merge FIRST-PART WHOLE.gguf"
        raise ModelError(str(file), f"is one of {parts} parts", "expected a whole model", fix)
    return dict(metadata)


def _model(file: Path, metadata: dict[str, Any]) -> Any:
    """Return the model of a file, in float32, as an ordinary one that can be saved. Errors: `ModelError`."""
    import torch
    import transformers

    place: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tensors = _tensors(file)
    with _quiet(file):
        config = transformers.AutoConfig.from_pretrained(**place, trust_remote_code=False)
    config = gguf_checks.with_positions(file, metadata, tensors, config)
    gguf_checks.check_settings(file, metadata, config)
    with _quiet(file):
        read, report = transformers.AutoModelForCausalLM.from_pretrained(
            **place, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        found = f"lacks {len(lacking)} of the weights of a {type(read).__name__}, such as {lacking[0]}"
        raise ModelError(str(file), found, ORIGINAL)
    gguf_checks.check_tensors(file, metadata, tensors, read)
    # A model that was read from GGUF refuses to be saved; a fresh one with its weights does not.
    config = read.config
    for name in ("quantization_config", "_model_name_or_path"):
        config.__dict__.pop(name, None)
    model = type(read)(config).to(torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = transformers.GenerationConfig.from_model_config(config)
    return model


def _tensors(file: Path) -> dict[str, int]:
    """Return the number of values of every tensor, by name. Errors: `ModelError` for a file that is cut off."""
    from gguf import GGUFReader
    from transformers.integrations.gguf import GgufHeader

    try:
        header = GgufHeader.from_file(str(file))
    except ValueError:  # a quantisation that the package gguf may know
        with _quiet(file):
            return {each.name: int(each.n_elements) for each in GGUFReader(str(file)).tensors}
    expected = max((header.data_start + each.offset + each.nbytes for each in header.tensors), default=0)
    if expected > file.stat().st_size:
        raise ModelError(str(file), f"is cut off: {file.stat().st_size:,} bytes", f"expected {expected:,}", AGAIN)
    return {each.name: math.prod(each.shape) for each in header.tensors}


@contextlib.contextmanager
def _quiet(file: Path) -> Iterator[None]:
    """Silence the bars of a library, which no setting turns off, and turn its errors into `ModelError`."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception as error:  # a damaged file raises anything
        if isinstance(error, ModelError | MemoryError) or is_full(error):
            raise
        raise ModelError(str(file), f"cannot be converted: {first_line(error)}", ORIGINAL) from error
