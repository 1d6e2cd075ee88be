"""Low-rank adapters (arXiv:2106.09685): adapters trained here, and adapters read and merged into their base model.

A model named by its adapters is loaded as the merged model. It can be scored, used as a reference or trained further,
with new adapters (`--lora-r`) or all weights.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils.save_and_load import load_peft_weights

from headwater.console import say
from headwater.data import adapter_files
from headwater.errors import ModelError, UsageError, first_line
from headwater.models import heads, pretrained
from headwater.models.heads import Head, Wanted
from headwater.models.lora_options import LoraOptions
from headwater.models.tensor_files import listed

TASKS: dict[str | None, Head] = {"CAUSAL_LM": "policy", "SEQ_CLS": "reward"}
WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
NOT_MERGED = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "XLORA", "POLY"}
)
"""Kinds of adapters that are not changes of weights, and so cannot be merged."""
SAME = 1e-4
"""Maximum difference between outputs before and after merging in float32, relative to the largest output."""


def check_targets(model: Any, options: LoraOptions | None) -> None:
    """Refuse names of target modules that `model` does not have, which peft ignores. Errors: `UsageError`."""
    names = [f".{name}" for name, _ in model.named_modules()]
    for target in options.targets() if options else ():
        if not any(name.endswith(f".{target}") for name in names):
            raise UsageError("--lora-target-modules", f"no module is called {target}", "name this model's own")


def adapted(model: Any, head: Head, options: LoraOptions) -> Any:
    """Return `model` with low-rank adapters as its only trainable weights.

    A new score head is trained whole. Embeddings tied to the output layer are untied where one of the two is adapted.
    Errors: `UsageError` when no module has the given names.
    """
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha or 2 * options.rank,
        lora_dropout=options.dropout or 0.0,
        target_modules=options.targets() or "all-linear",
        task_type=peft.TaskType.CAUSAL_LM if head == "policy" else peft.TaskType.SEQ_CLS,
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # untied here
            found = peft.get_peft_model(model, config)
    except ValueError as error:
        raise UsageError("--lora-target-modules", first_line(error), "name modules of this model") from error
    if untie(found):
        say("adapters: the output is no longer tied to the embeddings, of which one is adapted")
    return found


def save(model: Any, path: Path, run: Path) -> None:
    """Write the adapters of `model` with the path of their base; nothing where the base is stored nowhere.

    A base into which other adapters were merged exists only in memory; a scratch model is stored in its `run`, where
    there is a reference.
    """
    config = model.peft_config["default"]
    base = config.base_model_name_or_path
    if base and adapter_files.config_of(base) is not None:
        say(f"adapters: saved merged into the model only, since their base ({base} merged) lies nowhere")
        return
    if base and Path(base).exists():
        config.base_model_name_or_path = str(Path(base).resolve())
    elif not base and (run / "reference").is_dir():
        config.base_model_name_or_path = "../reference"
    model.save_pretrained(path)


def untie(model: Any) -> bool:
    """Give the output layer of an adapted model its own weights where it shares those of adapted embeddings.

    Merging the adapters of one into shared weights would change the other too. Returns whether it did.
    """
    inner = model.get_base_model()
    modules = inner.get_output_embeddings(), inner.get_input_embeddings()
    plain = [_plain(module) for module in modules]
    if None in plain or all(a is b for a, b in zip(modules, plain, strict=True)):
        return False
    output, embeddings = plain
    if output.weight is not embeddings.weight:
        return False
    output.weight = torch.nn.Parameter(output.weight.detach().clone(), requires_grad=output.weight.requires_grad)
    pretrained.set_untied(inner)
    return True


def _plain(module: Any) -> Any:
    """Return the module wrapped by adapters, or the one they keep a trainable copy of."""
    for name in ("base_layer", "original_module"):
        if hasattr(module, name):
            return _plain(getattr(module, name))
    return module


def head_of(name: str, config: dict[str, Any]) -> Head:
    """Return whether adapters with their base are a reward model or a policy. Errors: `ModelError`."""
    task = config.get("task_type")
    if task in TASKS:
        return TASKS[task]
    if task is not None:
        raise ModelError(name, f"is an adapter for {task}", "expected CAUSAL_LM or SEQ_CLS", "name another one")
    if any(".score." in key for key in _weights(name)):
        return "reward"
    base = adapter_files.base_of(name, config)
    deeper = adapter_files.config_of(base)
    found = head_of(base, deeper) if deeper is not None else heads.head_of(base, heads.config_of(base))
    if found is None:
        raise ModelError(
            name, f"is an adapter of {base}, which is neither a policy nor a reward model", "name another one"
        )
    return found


def read(name: str, config: dict[str, Any], wanted: Wanted) -> Any:
    """Read adapters by path or hub name, and return their base with the adapters merged in. Errors: `ModelError`."""
    _check(name, config, wanted)
    weights = _weights(name)
    base = adapter_files.base_of(name, config)
    model = _base(name, base, wanted, _labels(weights))
    _resize(model, weights, name)
    lora = _put_on(model, name, weights, wanted)
    if not config.get("ensure_weight_tying"):
        untie(lora)
    merged = _merged(lora, name)
    merged.requires_grad_(True)  # peft froze them
    merged.config._name_or_path = merged.name_or_path = name
    say(f"adapter: {name} is merged into its base, {base}")
    if wanted.head == "reward" and merged.config.num_labels > 1:
        heads.labels_of(name, merged.config, wanted.reward_head)
        assert wanted.reward_head is not None
        heads.keep_output(merged, wanted.reward_head, name)
    return merged


def _check(name: str, config: dict[str, Any], wanted: Wanted) -> None:
    """Refuse adapters that cannot be merged, or that are of another kind than wanted. Errors: `ModelError`."""
    kind, head = str(config.get("peft_type")), head_of(name, config)
    if kind in NOT_MERGED or kind not in peft.PeftType.__members__:
        raise ModelError(name, f"is an adapter of kind {kind}, which changes no weights", "expected one such as LORA")
    if wanted.head == "policy" and head == "reward":
        fix = "train-reward trains it on, score and evaluate read its rewards"
        raise ModelError(name, "is the adapter of a reward model", "expected that of a policy", fix)
    if wanted.head == "reward" and head == "policy" and not wanted.new_head:
        fix = "make one of it with train-reward; evaluate and score also read a policy's implicit reward"
        raise ModelError(name, "is the adapter of a policy", "expected a finished reward model", fix)


def _weights(name: str) -> dict[str, torch.Tensor]:
    """Read the weights of adapters. Errors: `ModelError` for pickled or damaged ones."""
    folder = Path(name)
    if folder.is_dir() and not (folder / WEIGHTS).is_file():
        pickled = (folder / PICKLED).is_file()
        found = f"has pickled weights ({PICKLED}), which can run code" if pickled else "is an adapter without weights"
        raise ModelError(name, found, f"expected {WEIGHTS}", "save it again with peft" if pickled else "copy it again")
    try:
        return dict(load_peft_weights(name, device="cpu"))
    except Exception as error:  # a damaged file or a hub that fails, each in its own way
        raise ModelError(name, f"is an adapter that cannot be read: {first_line(error)}", "copy it again") from error


def _in_score(key: str) -> bool:
    return key.removeprefix(PREFIX).split(".")[0] in ("score", "classifier") and key.endswith("weight")


def _in_base(key: str) -> str:
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")


def _labels(weights: dict[str, torch.Tensor]) -> int | None:
    """Return the number of outputs of the score head among the weights of adapters."""
    rows = [len(tensor) for key, tensor in weights.items() if _in_score(key) and ".lora_" not in key]
    return rows[-1] if rows else None


def _base(name: str, base: str, wanted: Wanted, labels: int | None) -> Any:
    """Read the base of adapters that include a score head of `labels` outputs. Errors: `ModelError`."""
    if labels is not None:
        wanted = Wanted(wanted.head, new_head=True, labels=labels, given=True)
    try:
        deeper = adapter_files.config_of(base)
        if deeper is not None:
            return read(base, deeper, wanted)
        return pretrained.read(base, heads.config_of(base), wanted)
    except ModelError as error:
        raise ModelError(name, f"is an adapter of {base}", str(error)) from error


def _resize(model: Any, weights: dict[str, torch.Tensor], name: str) -> None:
    """Resize the embeddings of a base to those of its adapters, where they include embeddings."""
    embeddings = model.get_input_embeddings()
    place = next(key for key, module in model.named_modules() if module is embeddings)
    found = weights.get(f"{PREFIX}{place}.weight")
    if found is not None and len(found) != embeddings.weight.shape[0]:
        say(f"adapter: {name} brings {len(found)} embeddings, its base has {embeddings.weight.shape[0]}")
        model.resize_token_embeddings(len(found), mean_resizing=False)


def _put_on(model: Any, name: str, weights: dict[str, torch.Tensor], wanted: Wanted) -> Any:
    """Attach adapters to their base. Errors: `ModelError` where a weight has no module, or a module no weight."""
    names = set(model.state_dict())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is checked here
            config = peft.PeftConfig.from_pretrained(name)
            if wanted.head == "reward" and config.task_type == "CAUSAL_LM":
                config.task_type = None  # peft would ask the model to generate
            found = peft.PeftModel.from_pretrained(model, name, config=config)
            expected = set(peft.get_peft_model_state_dict(found, save_embedding_layers=False))
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            name, f"does not fit its base: {_shortened(error)}", "name the base it was made for"
        ) from error
    # Where embeddings are adapted, peft also saves those of the base.
    extra = {key for key in set(weights) - expected if _in_base(key) not in names}
    if wanted.head == "reward" and wanted.new_head:  # the output layer that the score head replaces
        extra = {key for key in extra if not key.removeprefix(PREFIX).startswith(("lm_head.", "embed_out."))}
    lost = expected - set(weights)
    for keys, problem in ((extra, "its base has no place for"), (lost, "lacks")):
        if keys:
            raise ModelError(name, f"{problem} {len(keys)} weights: {listed(sorted(keys))}", "name its own base")
    return found


def _shortened(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("size mismatch")), first_line(error))


def _merged(lora: Any, name: str) -> Any:
    """Merge adapters into their base, and compare outputs before and after. Errors: `ModelError` where they differ."""
    vocabulary = lora.get_base_model().get_input_embeddings().weight.shape[0]
    sample = torch.arange(1, 13)[None] % vocabulary
    lora.eval()
    with torch.no_grad():
        before = lora.get_base_model()(input_ids=sample).logits
        merged = lora.merge_and_unload().eval()
        after = merged(input_ids=sample).logits
    off = (after - before).abs().max() / before.abs().max().clamp(min=1e-6)
    if not off <= SAME:
        found = f"says other things merged into its base than beside it (by {off:.2g} of the largest output)"
        raise ModelError(name, found, "merge it with peft and name the merged model")
    return merged
