"""Determine from a checkpoint whether it is a policy or a reward model, and which output is the reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers

from headwater.data import adapter_files, gguf_files, untrusted
from headwater.errors import ModelError, UsageError, first_line
from headwater.models import tensor_files

Head = Literal["policy", "reward"]
AUTO = {"policy": transformers.AutoModelForCausalLM, "reward": transformers.AutoModelForSequenceClassification}


class Wanted(NamedTuple):
    """What a checkpoint is to be loaded as."""

    head: Head
    new_head: bool = False
    """Whether to initialise a score head at random where there is none."""
    reward_head: int | None = None
    """Index of the reward among the outputs of a reward model with several."""
    labels: int = 1
    """Number of outputs of a new score head."""
    given: bool = False
    """Whether the weights of a new score head are supplied right afterwards."""


OTHER_TASKS = {
    "ForTokenClassification": "gives every token a label (a process reward model, perhaps)",
    "ForQuestionAnswering": "answers questions by spans",
    "ForMultipleChoice": "chooses among answers",
    "ForImageClassification": "classifies images",
}
"""Suffixes of architectures with heads for other tasks, and those tasks."""


def config_of(name: str) -> Any:
    """Read the configuration of a model. Errors: `ModelError` where there is none, or no model in the folder."""
    place = gguf_files.model_folder(name)
    check_place(Path(place))
    untrusted.check_model(place)
    try:
        return transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        fix = "name a training run, a path or a model"
        raise ModelError(name, f"holds no model: {first_line(error)}", fix) from error


def check_place(path: Path) -> None:
    """Refuse a folder that holds parts of a model, but no complete one. Errors: `ModelError`."""
    if not path.is_dir() or any((path / name).is_file() for name in ("config.json", adapter_files.CONFIG)):
        return
    if (path / "state.safetensors").is_file():
        raise ModelError(str(path), "is a training checkpoint, not a model", f"finish the run {path.parent} first")
    inside = [each.parent for each in sorted(path.glob("*/adapter_config.json")) + sorted(path.glob("*/config.json"))]
    if inside:
        raise ModelError(str(path), "holds no model itself", f"name {inside[0]}")


def architecture_of(config: Any) -> str | None:
    """Return the class name that a checkpoint was saved from; None where its configuration has none."""
    return next(iter(getattr(config, "architectures", None) or ()), None)


def head_of(name: str, config: Any) -> Head | None:
    """Return whether a checkpoint is a reward model or a policy; None where it is neither."""
    architecture = architecture_of(config)
    if architecture is None:
        return _by_weights(name, config)
    if architecture.endswith("ForSequenceClassification"):
        return "reward"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "policy"
    return None


def _by_weights(name: str, config: Any) -> Head | None:
    """Classify by its weights a checkpoint whose configuration names no architecture."""
    names = tensor_files.headers(tensor_files.files_of(name))
    if any(part in ("score", "classifier") for each in names for part in each.split(".")[:-1]):
        return "reward"
    return "policy" if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING else None


def check(name: str, config: Any, wanted: Wanted) -> None:
    """Refuse a checkpoint of the wrong kind; with a new head, a policy may become a reward model.

    Errors: `ModelError`, with a way that works.
    """
    architecture = architecture_of(config) or ""
    for ending, does in OTHER_TASKS.items():
        if architecture.endswith(ending):
            fix = "name a reward model with one output a text, or a policy"
            raise ModelError(name, f"is a {architecture}, which {does}", f"expected a {_WORDS[wanted.head]}", fix)
    found = head_of(name, config)
    if wanted.head == "policy" and found == "reward":
        fix = "train-reward trains it on, score and evaluate read its rewards"
        raise ModelError(name, f"is a reward model ({architecture})", "expected a policy, a causal language model", fix)
    if wanted.head == "reward" and found != "reward" and not wanted.new_head:
        fix = "make one of it with train-reward; evaluate and score also read a policy's implicit reward"
        what = f"a policy ({architecture})" if found == "policy" else f"a {architecture or 'model without a head'}"
        raise ModelError(name, f"is {what}", "expected a finished reward model", fix)


def neither(name: str, config: Any) -> ModelError:
    """Return the error for a checkpoint that is neither a policy nor a reward model."""
    architecture = architecture_of(config) or f"{config.model_type} model"
    does = next((f", which {does}" for ending, does in OTHER_TASKS.items() if architecture.endswith(ending)), "")
    return ModelError(name, f"is a {architecture}{does}", "expected a reward model or a causal language model")


_WORDS = {"policy": "policy", "reward": "reward model"}


def labels_of(name: str, config: Any, index: int | None) -> int:
    """Return the number of outputs of a trained reward model, of which `index` is the reward.

    Errors: `ModelError` where it has several and no index is given; `UsageError` for an index out of range.
    """
    labels = int(config.num_labels)
    if labels > 1 and index is None:
        names = ", ".join(f"{number} {label}" for number, label in list(config.id2label.items())[:4])
        more = ", …" if labels > 4 else ""
        fix = f"name the one that is the reward: --reward-head 0 to {labels - 1}"
        raise ModelError(name, f"has {labels} outputs ({names}{more})", "a reward model has one", fix)
    check_index(name, index, labels)
    return labels


def check_index(name: str, index: int | None, labels: int) -> None:
    """Refuse an index out of range. Errors: `UsageError`."""
    if index is not None and not 0 <= index < labels:
        outputs = f"{labels} output{'s' if labels > 1 else ''}"
        raise UsageError(f"--reward-head {index}", f"{name} has {outputs}", f"expected 0 to {labels - 1}")


def set_labels(config: Any, labels: int) -> None:
    """Set the number of outputs, also in the text part of a multimodal configuration."""
    for each in (config, config.get_text_config()):
        each.num_labels = labels


def keep_output(model: Any, index: int, name: str) -> None:
    """Make `index` the only output of a sequence classifier, in place. Errors: `ModelError`."""
    inside = f"{model.base_model_prefix}."
    found = [
        module
        for place, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features == model.config.num_labels
        and not place.startswith(inside)
    ]
    if len(found) != 1:
        raise ModelError(name, "has a head whose outputs cannot be separated", "save a model with one output")
    (head,) = found
    head.weight = torch.nn.Parameter(head.weight.detach()[index : index + 1].clone())
    if head.bias is not None:
        head.bias = torch.nn.Parameter(head.bias.detach()[index : index + 1].clone())
    head.out_features = 1
    set_labels(model.config, 1)
    model.num_labels = 1
