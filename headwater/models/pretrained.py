"""Load a checkpoint completely: every weight of the model is found, and every weight of the checkpoint is used.

transformers initialises missing weights at random and ignores unexpected ones, with a warning; here both are errors
that name the weights. Differences that transformers knows to be harmless (tied weights, buffers that older versions
saved) are accepted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError

from headwater.console import say
from headwater.data import gguf_files
from headwater.errors import ModelError, first_line
from headwater.models import heads, tensor_files
from headwater.models.heads import AUTO, Head, Wanted
from headwater.models.tensor_files import FLOATS, listed

WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "module.": "data parallelism",
    "base_model.model.": "peft",
    "pretrained_model.": "a value head of TRL",
    "model.": "a module around it",
}
"""Prefixes that wrappers add to the names of weights; those that come first may also occur inside names."""
INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

RENAMED_HEADS = ("embed_out.",)
"""Output layers whose names in checkpoints differ from those in the class that reads them (GPT-NeoX)."""


class Report(NamedTuple):
    """Differences between a checkpoint and the model built from it, by names of weights."""

    missing: list[str]
    """Only in the model."""
    unexpected: list[str]
    """Only in the checkpoint."""
    mismatched: list[str]
    """In both, with different shapes: descriptions."""

    @property
    def problems(self) -> list[str]:
        """Describe what is wrong; empty where nothing is."""
        lacks = f"lacks {len(self.missing)} of its weights: {listed(self.missing)}" if self.missing else ""
        extra = len(self.unexpected)
        more = f"has {extra} weights that its model has no place for: {listed(self.unexpected)}" if extra else ""
        return [problem for problem in (lacks, more, listed(self.mismatched)) if problem]


def read(name: str, config: Any, wanted: Wanted) -> Any:
    """Read a checkpoint, by path or hub name, as the wanted kind of model, in float32.

    A new score head is drawn from torch's global generator; seed it before. Errors: `ModelError`, `UsageError`.
    """
    place = gguf_files.model_folder(name)
    if place != name:
        model = read(place, config, wanted)
        model.config._name_or_path = model.name_or_path = name
        return model
    heads.check(name, config, wanted)
    _check_plain(name, config)
    if Path(name).is_dir() and not getattr(config, "transformers_weights", None):
        tensor_files.check_folder(Path(name))
    finished = heads.head_of(name, config) == "reward"
    if wanted.head == "reward":
        heads.set_labels(config, _labels(name, config, wanted, finished))
    model, report = _read(name, wanted.head, config)
    if report.problems:
        model, report = _unwrapped(name, model, report)
    if wanted.head == "reward" and wanted.new_head:
        finished = finished and not _headless(model, report)
    if wanted.head == "reward" and (wanted.given or not finished):
        report = _without_heads(report, model, config)
    if report.problems:
        raise ModelError(name, "; ".join(report.problems), _advice(report, config))
    _check_dtypes(name)
    _check_tie(model)
    if wanted.head == "reward" and not finished and not wanted.given:
        say(f"score head: new, seed {torch.initial_seed()}")
    if wanted.reward_head is not None and finished and model.config.num_labels > 1:
        heads.keep_output(model, wanted.reward_head, name)
    return model


def _labels(name: str, config: Any, wanted: Wanted, finished: bool) -> int:
    """Return the number of outputs to build a sequence classifier with. Errors: `ModelError`, `UsageError`."""
    if finished and not wanted.given:
        return heads.labels_of(name, config, wanted.reward_head)
    if not wanted.given:
        heads.check_index(name, wanted.reward_head, 1)
    return wanted.labels


def _headless(model: Any, report: Report) -> bool:
    """Return whether a checkpoint has no weights outside the backbone of `model`."""
    inside = f"{model.base_model_prefix}."
    head = {key for key, _ in model.named_parameters() if not key.startswith(inside)}
    return head <= set(report.missing)


def _read(name: str, head: Head, config: Any) -> tuple[Any, Report]:
    with _refused(name):
        return _reported(AUTO[head].from_pretrained, name, config)


def _reported(load: Callable[..., Any], name: str | None, config: Any, **others: Any) -> tuple[Any, Report]:
    model, info = load(
        name,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # which the report names
        **others,
    )
    shapes = [
        f"{key} is {list(theirs)} in the file and {list(ours)} by config.json"
        for key, theirs, ours in sorted(info["mismatched_keys"])
    ]
    return model, Report(sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), shapes)


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        fix = "name a Hugging Face model, a path or scratch()"
        raise ModelError(name, f"cannot be loaded: {first_line(error)}", fix) from error


def _check_plain(name: str, config: Any) -> None:
    """Refuse quantised weights. Errors: `ModelError`."""
    for each in (config, config.get_text_config()):
        found = getattr(each, "quantization_config", None)
        if found:
            method = found.get("quant_method", "unknown") if isinstance(found, Mapping) else type(found).__name__
            fix = "name the checkpoint in bfloat16, float16 or float32, or dequantise it first"
            raise ModelError(name, f"has quantised weights ({method})", "rewards and gradients need plain ones", fix)


def _check_dtypes(name: str) -> None:
    """Refuse matrices stored as integers or in 8 bits without a declaration. Errors: `ModelError`."""
    found = tensor_files.headers(tensor_files.files_of(name))
    odd = sorted(key for key, header in found.items() if header.dtype not in FLOATS and len(header.shape) == 2)
    odd = [key for key in odd if not key.endswith("position_ids")]
    if odd:
        kinds = ", ".join(sorted({found[key].dtype for key in odd}))
        fix = "name the checkpoint in bfloat16, float16 or float32, or dequantise it first"
        raise ModelError(name, f"has {len(odd)} weights stored as {kinds}: {listed(odd)}", fix)


def _check_tie(model: Any) -> None:
    """Mark embeddings as untied in the configuration where the checkpoint has two different ones."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and model.config.get_text_config().tie_word_embeddings and head.weight is not embeddings.weight:
        set_untied(model)


def set_untied(model: Any) -> None:
    """Mark the output layer of a model as untied, in its configuration too."""
    for each in (model.config, model.config.get_text_config()):
        each.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _unwrapped(name: str, model: Any, report: Report) -> tuple[Any, Report]:
    """Read a checkpoint again with the prefixes of wrappers removed, and print that; else return the given one."""
    files = tensor_files.files_of(name)
    found = [key for key in WRAPPERS if any(_has(each, key) for each in report.unexpected)]
    if not found or not files or any(".lora_" in each for each in report.unexpected):
        return model, report
    weights = {_stripped(key, found): tensor for key, tensor in tensor_files.tensors(files).items()}
    with _refused(name):
        again, second = _reported(type(model).from_pretrained, None, model.config, state_dict=weights)
    if len(second.missing) + len(second.unexpected) >= len(report.missing) + len(report.unexpected):
        return model, report
    again.generation_config = getattr(model, "generation_config", None)
    again.config._name_or_path = again.name_or_path = name
    prefixes = ", ".join(f"{key} ({WRAPPERS[key]})" for key in found)
    say(f"model: removed {prefixes}, left by a wrapper, from the names of its weights")
    return again, second


def _has(key: str, wrapper: str) -> bool:
    return key.startswith(wrapper) or (wrapper in INSIDE and f".{wrapper}" in key)


def _stripped(key: str, wrappers: list[str]) -> str:
    """Return the name of a weight without the prefixes of wrappers."""
    for wrapper in wrappers:
        if wrapper in INSIDE:
            key = f".{key}".replace(f".{wrapper}", ".").removeprefix(".")
    before = None
    while before != key:
        before = key
        for wrapper in wrappers:
            if wrapper not in INSIDE and (wrapper != "model." or key.startswith("model.model.")):
                key = key.removeprefix(wrapper)
    return key


def _without_heads(report: Report, model: Any, config: Any) -> Report:
    """Remove from a report what a new score head explains: its own weights, and those of the head it replaces."""
    inside = f"{model.base_model_prefix}."
    missing = [key for key in report.missing if key.startswith(inside) and ".pooler." not in key]
    mismatched = [said for said in report.mismatched if said.startswith(inside)]
    unexpected = [key for key in report.unexpected if "pooler." not in key]
    if unexpected:
        others = _other_heads(config, inside)
        unexpected = [key for key in unexpected if key not in others and not key.startswith(RENAMED_HEADS)]
    return Report(missing, unexpected, mismatched)


def _other_heads(config: Any, inside: str) -> set[str]:
    """Return the weights of the heads that models of this architecture were pretrained with."""
    named = getattr(transformers, heads.architecture_of(config) or "", None)
    mappings = (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
        transformers.MODEL_FOR_PRETRAINING_MAPPING,
    )
    classes: set[Any] = {mapping[type(config)] for mapping in mappings if type(config) in mapping} | {named}
    found: set[str] = set()
    for each in filter(None, classes):
        with contextlib.suppress(TypeError, ValueError, AttributeError), torch.device("meta"):
            found |= {key for key in each(config).state_dict() if not key.startswith(inside)}
    return found


def _advice(report: Report, config: Any) -> str:
    """Return advice for a report with problems."""
    if any(key.startswith(("v_head.", "value_head.")) for key in report.unexpected):
        return "a value head (TRL's PPO) gives no reward and is no part of a policy: save the model without it"
    if any(".lora_" in key for key in report.unexpected):
        return "these are adapters inside of the model: merge them, or name the adapter's folder"
    if report.mismatched and not report.missing and not report.unexpected:
        return "config.json and weights are not of one model: copy both from one place"
    if report.missing == ["score.weight"]:
        return "its rewards would be random: name a finished reward model, or train one with train-reward"
    return f"name a whole checkpoint of the {heads.architecture_of(config) or config.model_type} that config.json says"
