"""What models have to do with the end of a turn: where they stop, what they pad with, where a reward is read.

How a turn ends is the tokenizer's matter (`data.turns`). A model that is saved says it to other tools too: its
generation stops there, and its padding token is another one, because transformers reads the reward of a row at the last
token that is not padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headwater.console import say
from headwater.data import adapter_files
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.tokens import EndToken
from headwater.data.turns import padding_token, turn_end
from headwater.errors import ModelError
from headwater.models import adapters, heads
from headwater.results import runs

PAD = "<|pad|>"
"""Added to a vocabulary that has no token to spare."""


def end_tokens(model: Any, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that end a response of `model`: the end of a turn, EOS, and those that it names itself.

    Errors: `ModelError` where there are none.
    """
    named = _ids(getattr(model.generation_config, "eos_token_id", None))
    if not tokenizer.chat_template:
        named |= _ids(tokenizer.eos_token_id)
    else:
        try:
            named |= {*turn_end(tokenizer).stop_ids}
        except ModelError:
            if not named:
                raise
    if not named:
        raise ModelError("the model", "has no token that ends a response")
    return sorted(named)


def _ids(named: int | list[int] | None) -> set[int]:
    """Return the ids that a configuration names, which may be one, several or none."""
    return set() if named is None else set(named) if isinstance(named, list) else {named}


def name_end_tokens(model: Any, tokenizer: Tokenizer) -> None:
    """Let the configurations of a policy name the tokens at which it stops, for whatever loads it."""
    ends = end_tokens(model, tokenizer)
    named = ends[0] if len(ends) == 1 else ends
    for config in (model.generation_config, model.config, model.config.get_text_config()):
        config.eos_token_id = named
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
    # No longer what the model's configuration made of itself.
    model.generation_config._from_model_config = False


def give_padding(model: Any, tokenizer: Tokenizer, reward: bool) -> None:
    """Give a model that is to be trained a padding token, and say so where it is a new one.

    That of a reward model must not end turns: transformers would read the token before. Where the vocabulary has no
    other to spare, one is added. A policy keeps the one it has; without one it pads with its EOS token.
    """
    before = tokenizer.pad_token
    token: str | None
    if reward:
        token = padding_token(tokenizer) or _added(model, tokenizer)
    else:
        token = before or padding_token(tokenizer) or tokenizer.eos_token
    if token is None:
        return
    if token != before:
        tokenizer.pad_token = token
        reason = "the model has none" if before is None else f"{before!r} also ends turns, where rewards are read"
        say(f"padding token: {token!r}, because {reason}")
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    if reward:
        # Its embedding is not trained: that of the token which ends turns has to be.
        embeddings = model.get_input_embeddings()
        if getattr(embeddings, "padding_idx", None) is not None:
            embeddings.padding_idx = tokenizer.pad_token_id


def _added(model: Any, tokenizer: Tokenizer) -> str:
    """Add a padding token to a vocabulary and, where the model has no embedding to spare, one with zeros."""
    tokenizer.add_special_tokens({"pad_token": PAD})
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[-1] = 0.0
    return PAD


def end_rule(name: str) -> EndToken:
    """Return who gets an end-of-turn token where a model, by name or path, reads responses: as it was trained.

    A reward model of others has been trained to be read where transformers reads it. Where its padding token ends
    turns, that is the token before the end, and so nobody gets an end token here. Errors: `ModelError`.
    """
    trained = _trained(Path(name)).get("end")
    padding = _padding_of_classifier(name) if trained is None else None
    if padding is None:
        return "complete" if trained is None else trained
    tokenizer = load_tokenizer(name, ())
    if not tokenizer.chat_template or turn_end(tokenizer).token != padding:
        return "complete"
    token = tokenizer.convert_ids_to_tokens(padding)
    say(f"{name}: {token!r} pads and ends turns; transformers reads the reward before it, and so does headwater")
    return "never"


def _trained(path: Path) -> dict[str, Any]:
    """Return the facts of a training run; of adapters that lie in one, those of the run around them."""
    return runs.facts_of(path) or (runs.facts_of(path.parent) if path.name == "adapter" else {})


def _padding_of_classifier(name: str) -> int | None:
    """Return the padding token that a causal sequence classifier names; None for others, and where there is none."""
    base, adapter = name, adapter_files.config_of(name)
    while adapter is not None:
        if adapters.head_of(base, adapter) != "reward":
            return None
        base = adapter_files.base_of(base, adapter)
        adapter = adapter_files.config_of(base)
    config = heads.config_of(base)
    classifies = base != name or heads.head_of(name, config) == "reward"
    padding: int | None = config.get_text_config().pad_token_id if classifies else None
    return padding
