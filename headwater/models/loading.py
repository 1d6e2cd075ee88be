"""Load policies, reward models and their tokenizers; build scratch models for tests and for machines without a network.

Only safetensors weights are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from headwater.config import build
from headwater.console import say
from headwater.data import adapter_files, gguf_files, template_limits, untrusted
from headwater.data.preference import Record
from headwater.data.templates import PLAIN
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, is_call, load_tokenizer, texts_of, vocabulary_of
from headwater.errors import ModelError, UsageError
from headwater.models import adapters, finished, heads, pretrained
from headwater.models.heads import AUTO, Head, Wanted
from headwater.results import runs

VOCABULARY = "_headwater_vocabulary"
"""Attribute of a loaded model with the fingerprint of the vocabulary that its rows must be encoded with."""


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
    """A small ModernBERT with random weights and mean pooling; tokenizer as in `Scratch`.

    Mean pooling suits data that is too small to learn which token to read the reward from.
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


def device() -> torch.device:
    """Return the device that models are loaded to: the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    name: str,
    head: Head,
    records: Sequence[Record],
    seed: int,
    *,
    new_head: bool = False,
    reward_head: int | None = None,
    unfinished: bool = False,
) -> Loaded:
    """Load a model by Hugging Face name, path, or constructor call (`scratch(…)`), with its tokenizer.

    `untrained(RUN)` is the reward model of a run before its training.

    A path or name may be that of adapters, which are merged into their base. `records` train the tokenizer of a scratch
    model and are unused otherwise; `seed` determines new weights. With `new_head`, as training sets it, a policy
    becomes a reward model with a score head of random weights; without it that is refused, as is a checkpoint that
    lacks weights or has extra ones. `reward_head` selects the output of a reward model with several. `unfinished`
    allows a model whose run is not finished, for the run that is about to finish it. Errors: `UsageError`,
    `ModelError`.
    """
    _refuse_ensemble(name)
    if runs.is_untrained(name):
        trained, tokenizer = load(runs.trained_of(name), head, records, seed, reward_head=reward_head)
        base = runs.facts_of(Path(name)).get("base")
        return Loaded(untrained(trained, base, seed, reward_head), tokenizer)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    template_limits.install()
    if is_call(name):
        scratch = build(name, SCRATCH, "model")
        tokenizer = scratch.tokenizer(records)
        config = scratch.config(tokenizer)
        if head == "reward":
            config.num_labels = 1
        model = AUTO[head].from_config(config)
    else:
        if not gguf_files.is_gguf(name):
            heads.check_place(Path(name))
        with contextlib.nullcontext() if unfinished else finished.checking(Path(name)):
            tokenizer = load_tokenizer(name, records)  # which refuses what comes with code
            model = _pretrained(name, Wanted(head, new_head, reward_head))
    _check_fit(model, tokenizer, name)
    _check_finite(model, name)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    vars(model)[VOCABULARY] = vocabulary_of(tokenizer)  # copies of the model keep it, and saved files do not
    return Loaded(model.to(device()), tokenizer)


def untrained(model: Any, base: str | None, seed: int, reward_head: int | None = None) -> Any:
    """Return a reward model before training: the weights of `base`, or random ones, with a new score head.

    All weights are random where `base` is None or a constructor call. Errors: those of `load`.
    """
    if base is not None and not is_call(base):
        return load(base, "reward", (), seed, new_head=True, reward_head=reward_head).model
    torch.manual_seed(seed)
    # Only the configuration is copied, not the attention implementation that the model was set to.
    config = type(model.config).from_dict(model.config.to_dict())
    return AUTO["reward"].from_config(config).to(device())


def load_members(
    name: str, head: Head, records: Sequence[Record], seed: int, reward_head: int | None = None
) -> list[Loaded]:
    """Load the members of an ensemble, or the single model of that name.

    Errors: those of `load`; `ModelError` where vocabularies differ.
    """
    members = [load(member, head, records, seed, reward_head=reward_head) for member in runs.members_of(name)]
    vocabulary = members[0].tokenizer.get_vocab()
    if any(member.tokenizer.get_vocab() != vocabulary for member in members[1:]):
        raise ModelError(name, "has members that differ in vocabulary", "score with each of them: score --model A B")
    return members


def check_conditions(name: str, conditions: Iterable[str]) -> None:
    """Refuse rows without a condition for a model trained under conditions. Errors: `UsageError`."""
    if runs.facts_of(Path(name)).get("conditional") and not all(conditions):
        fix = "give --condition TEXT or --condition-column NAME"
        raise UsageError(name, "was trained under conditions, and a row has none", fix)


def give_template(tokenizer: Tokenizer) -> None:
    """Give the tokenizer of an encoder a plain template where it has none; it is saved with the trained model."""
    if not tokenizer.chat_template and tokenizer.cls_token and tokenizer.sep_token:
        tokenizer.chat_template = PLAIN
        shown = tokenizer.apply_chat_template([{"role": "user", "content": "…"}], tokenize=False)
        say(f"chat template: the model has none, and gets {shown!r}")


def _refuse_ensemble(name: str) -> None:
    members = runs.members_of(name)
    if len(members) > 1:
        raise ModelError(name, f"is an ensemble of {len(members)}", f"name one of its members, such as {members[0]}")


def _pretrained(name: str, wanted: Wanted) -> Any:
    adapter = adapter_files.config_of(name)
    if adapter is not None:
        return adapters.read(name, adapter, wanted)
    return pretrained.read(name, heads.config_of(name), wanted)


def _check_fit(model: Any, tokenizer: Tokenizer, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(name, f"tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings", "use its own one")


def _check_finite(model: Any, name: str) -> None:
    weights = ((key, weight) for key, weight in model.state_dict().items() if weight.is_floating_point())
    broken = next((key for key, weight in weights if not torch.isfinite(weight).all()), None)
    # Buffers that are not saved are computed; masks among them may hold −∞, but nothing undefined.
    broken = broken or next((key for key, each in model.named_buffers() if torch.isnan(each).any()), None)
    if broken:
        raise ModelError(name, f"has weights that are not finite in {broken}", "use another checkpoint")


def reference_of(model: str, named: str | None, tokenizer: Tokenizer, seed: int) -> Any:
    """Load the reference of a policy: the one that is named, or the one in its training run.

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


def head_of(name: str) -> Head:
    """Return whether a saved model is a reward model or a policy. Errors: `ModelError`, also for an ensemble."""
    _refuse_ensemble(name)
    if runs.is_untrained(name):
        if head_of(runs.trained_of(name)) == "policy":
            raise ModelError(name, "is of a policy: its reference is what it was before", "name that")
        return "reward"
    untrusted.check_model(name)
    adapter = adapter_files.config_of(name)
    if adapter is not None:
        return adapters.head_of(name, adapter)
    config = heads.config_of(name)
    found = heads.head_of(name, config)
    if found is None:
        raise heads.neither(name, config)
    return found
