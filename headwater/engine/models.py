"""Load policies, reward models and their tokenizers; scratch models for machines without a network, and for studies.

Only safetensors weights are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import peft
import torch
import transformers

from headwater import runs
from headwater.config import build
from headwater.console import say
from headwater.data import untrusted
from headwater.data.preference import Record
from headwater.data.tokenizers import PLAIN, ScratchTokenizer, Tokenizer, is_call, load_tokenizer, texts_of
from headwater.engine.options import TrainingOptions
from headwater.errors import ModelError, UsageError, first_line

Head = Literal["policy", "reward"]


class Loaded(NamedTuple):
    """A model in float32 on its device, with its tokenizer."""

    model: Any
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Scratch:
    """A small Llama with random weights, and a byte-level BPE trained on the data: `scratch(hidden=256, layers=4)`."""

    hidden: int = 256
    layers: int = 4
    vocab: int = 4096
    positions: int = 4096

    def __post_init__(self) -> None:
        if self.hidden < 32 or self.hidden % 32:
            raise UsageError(f"scratch(hidden={self.hidden})", "hidden must be a multiple of 32")
        if self.layers < 1:
            raise UsageError(f"scratch(layers={self.layers})", "layers must be 1 or more")

    def tokenizer(self, records: Sequence[Record]) -> Tokenizer:
        """Train the tokenizer on the texts of `records`."""
        return ScratchTokenizer(self.vocab).train(texts_of(records))

    def config(self, tokenizer: Tokenizer) -> transformers.PreTrainedConfig:
        """Return the architecture for a tokenizer; heads are 32 or 64 wide."""
        heads = self.hidden // (64 if self.hidden % 64 == 0 and self.hidden >= 256 else 32)
        return transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 8 // 3 // 32 * 32,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            max_position_embeddings=self.positions,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )


@dataclass(frozen=True, slots=True)
class ScratchEncoder(Scratch):
    """A small ModernBERT with random weights that rewards the mean of its hidden states; its tokenizer, as `Scratch`'s.

    A mean over words suits data too small to learn which token to read from.
    """

    dropout: float = 0.1

    def config(self, tokenizer: Tokenizer) -> transformers.PreTrainedConfig:
        """Return the architecture for a tokenizer; heads are 32 or 64 wide."""
        return transformers.ModernBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 8 // 3 // 32 * 32,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // (64 if self.hidden % 64 == 0 and self.hidden >= 256 else 32),
            max_position_embeddings=self.positions,
            classifier_pooling="mean",
            embedding_dropout=self.dropout,
            mlp_dropout=self.dropout,
            classifier_dropout=self.dropout,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            cls_token_id=tokenizer.bos_token_id,
            sep_token_id=tokenizer.eos_token_id,
        )


SCRATCH = {"scratch": Scratch, "scratch_encoder": ScratchEncoder}
AUTO = {"policy": transformers.AutoModelForCausalLM, "reward": transformers.AutoModelForSequenceClassification}


def device() -> torch.device:
    """Return the device that models are loaded to: the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(name: str, head: Head, records: Sequence[Record], seed: int) -> Loaded:
    """Load a model by Hugging Face name, path, or constructor call (`scratch(…)`), with its tokenizer.

    `records` train the tokenizer of a scratch model and are not looked at otherwise; `seed` fixes new weights.
    A reward model made from a policy gets a new score head. Errors: `UsageError`, `ModelError`.
    """
    _refuse_ensemble(name)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if is_call(name):
        scratch = build(name, SCRATCH, "model")
        tokenizer = scratch.tokenizer(records)
        config = scratch.config(tokenizer)
        if head == "reward":
            config.num_labels = 1
        model = AUTO[head].from_config(config)
    else:
        tokenizer = load_tokenizer(name, records)
        model = _pretrained(name, head)
    _check_fit(model, tokenizer, name)
    _check_finite(model, name)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return Loaded(model.to(device()), tokenizer)


def untrained(model: Any, base: str | None, seed: int) -> Any:
    """Return a reward model as it was before training: the weights of `base`, or random ones, and a new score head.

    Random where `base` is None or a constructor call. Errors: those of `load`.
    """
    if base is not None and not is_call(base):
        return load(base, "reward", (), seed).model
    torch.manual_seed(seed)
    # The configuration alone: not the way to attend that the model was set to.
    config = type(model.config).from_dict(model.config.to_dict())
    return AUTO["reward"].from_config(config).to(device())


def load_members(name: str, head: Head, records: Sequence[Record], seed: int) -> list[Loaded]:
    """Load the members of an ensemble, or the one model of that name.

    Errors: those of `load`; `ModelError` where vocabularies differ.
    """
    members = [load(member, head, records, seed) for member in runs.members_of(name)]
    vocabulary = members[0].tokenizer.get_vocab()
    if any(member.tokenizer.get_vocab() != vocabulary for member in members[1:]):
        raise ModelError(name, "has members that differ in vocabulary", "score with each of them: score --model A B")
    return members


def check_conditions(name: str, conditions: Iterable[str]) -> None:
    """Refuse to ask a model that was trained under conditions where one is missing. Errors: `UsageError`."""
    if runs.facts_of(Path(name)).get("conditional") and not all(conditions):
        fix = "give --condition TEXT or --condition-column NAME"
        raise UsageError(name, "was trained under conditions, and a row has none", fix)


def give_template(tokenizer: Tokenizer) -> None:
    """Give the tokenizer of an encoder a plain template where it has none; it is saved with what is trained."""
    if not tokenizer.chat_template and tokenizer.cls_token and tokenizer.sep_token:
        tokenizer.chat_template = PLAIN
        shown = tokenizer.apply_chat_template([{"role": "user", "content": "…"}], tokenize=False)
        say(f"chat template: the model has none, and gets {shown!r}")


def _refuse_ensemble(name: str) -> None:
    members = runs.members_of(name)
    if len(members) > 1:
        raise ModelError(name, f"is an ensemble of {len(members)}", f"name one of its members, such as {members[0]}")


def _pretrained(name: str, head: Head) -> Any:
    # Only a reward model takes num_labels: for a causal model it would be an unused argument.
    extra = {"num_labels": 1} if head == "reward" else {}
    untrusted.check_model(name)
    try:
        return AUTO[head].from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **extra
        )
    except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        fix = "name a Hugging Face model, a path or scratch()"
        raise ModelError(name, f"cannot be loaded: {first_line(error)}", fix) from error


def _check_fit(model: Any, tokenizer: Tokenizer, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(name, f"tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings", "use its own one")


def _check_finite(model: Any, name: str) -> None:
    broken = next((key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if broken:
        raise ModelError(name, f"has weights that are not finite in {broken}", "use another checkpoint")


def reference_of(model: str, named: str | None, tokenizer: Tokenizer, seed: int) -> Any:
    """Load the reference of a policy: the one that is named, or the one its training run names.

    Errors: `UsageError` where none is known, `ModelError` for another vocabulary.
    """
    named = named or runs.facts_of(Path(model)).get("reference")
    if named is None:
        raise UsageError(model, "is a policy without a known reference", "name it with --reference")
    inside = Path(model) / named
    reference = load(str(inside if inside.is_dir() else named), "policy", (), seed)
    if reference.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ModelError(model, "and its reference differ in vocabulary", "name the model it started from")
    return reference.model


def check_targets(model: Any, options: TrainingOptions) -> None:
    """Refuse names of modules to adapt that `model` does not have, which peft passes by. Errors: `UsageError`."""
    names = [f".{name}" for name, _ in model.named_modules()]
    for target in (options.lora_target_modules or "").split(","):
        if target.strip() and not any(name.endswith(f".{target.strip()}") for name in names):
            raise UsageError("--lora-target-modules", f"no module is called {target.strip()}", "name this model's own")


def adapted(model: Any, head: Head, options: TrainingOptions) -> Any:
    """Return `model` with low-rank adapters (arXiv:2106.09685) as the only weights that are trained.

    A new score head is trained whole. Errors: `UsageError` when no module has the names that were given.
    """
    rank, targets = options.lora_r, options.lora_target_modules
    assert rank is not None
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=options.lora_alpha or 2 * rank,
        lora_dropout=options.lora_dropout or 0.0,
        target_modules=[name.strip() for name in targets.split(",")] if targets else "all-linear",
        task_type=peft.TaskType.CAUSAL_LM if head == "policy" else peft.TaskType.SEQ_CLS,
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise UsageError("--lora-target-modules", first_line(error), "name modules of this model") from error


def head_of(name: str) -> Head:
    """Say what a saved model is: a reward model or a policy. Errors: `ModelError`, also for an ensemble."""
    _refuse_ensemble(name)
    untrusted.check_model(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ModelError(
            name, f"holds no model: {first_line(error)}", "name a training run, a path or a model"
        ) from error
    architecture = (config.architectures or ["no architecture"])[0]
    if architecture.endswith("ForSequenceClassification"):
        return "reward"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "policy"
    raise ModelError(name, f"is a {architecture}", "expected a reward model or a causal language model")
