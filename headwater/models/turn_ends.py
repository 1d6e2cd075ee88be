"""End-of-turn handling of models: stop tokens, padding token, and the token at which a reward is read.

The tokenizer defines how a turn ends (`data.turns`). A saved model passes it on to other tools: its generation
configuration stops there, and its padding token is a different one, because transformers reads the reward of a row at
the last token that is not padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headwater.console import say
from headwater.data import adapter_files
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.turns import EndToken, padding_token, turn_end
from headwater.errors import ModelError
from headwater.models import adapters, heads
from headwater.results import runs
from headwater.results.facts import Facts

PAD = "<|pad|>"
"""Added to a vocabulary without an unused token."""


def end_tokens(model: Any, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that end a response of `model`: end of turn, EOS, and those in its configuration.

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
    """Return the ids in a configuration entry, which may be one, several or none."""
    return set() if named is None else set(named) if isinstance(named, list) else {named}


def name_end_tokens(model: Any, tokenizer: Tokenizer) -> None:
    """Write the stop tokens of a policy into its configurations, for any tool that loads it."""
    ends = end_tokens(model, tokenizer)
    named = ends[0] if len(ends) == 1 else ends
    for config in (model.generation_config, model.config, model.config.get_text_config()):
        config.eos_token_id = named
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
    # Marked as explicit, so that transformers does not derive it from the model's configuration again.
    model.generation_config._from_model_config = False


def give_padding(model: Any, tokenizer: Tokenizer, reward: bool) -> None:
    """Give a model that is to be trained a padding token, and print it where it is a new one.

    The padding token of a reward model must not end turns, since transformers would read the token before it. Where
    the vocabulary has no other token to use, one is added. A policy keeps the one it has; without one it pads with EOS.
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
        # The embedding of a padding token is not trained; that of the end-of-turn token has to be.
        embeddings = model.get_input_embeddings()
        if getattr(embeddings, "padding_idx", None) is not None:
            embeddings.padding_idx = tokenizer.pad_token_id


def _added(model: Any, tokenizer: Tokenizer) -> str:
    """Add a padding token to the vocabulary and, where the model has no unused embedding, a zero embedding."""
    tokenizer.add_special_tokens({"pad_token": PAD})
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[-1] = 0.0
    return PAD


def end_rule(name: str) -> EndToken:
    """Return the end-of-turn rule under which a model, by name or path, reads responses: the one it was trained with.

    A reward model from elsewhere was trained to be read where transformers reads it: at the last token of the rendered
    conversation that is not its padding token. Where the template writes a line break behind the end of the turn, that
    is the line break (`template`); where the padding token ends turns, it is the token before the end (`never`).
    Errors: `ModelError`.
    """
    name = runs.trained_of(name)
    trained = _trained(Path(name)).get("end")
    if trained is not None:
        return trained
    config = _classifier(name)
    if config is None:
        return "complete"
    tokenizer = load_tokenizer(name, ())
    if not tokenizer.chat_template:
        return "complete"
    end = turn_end(tokenizer)
    padding: int | None = config.get_text_config().pad_token_id
    if end.rest == end.text and padding != end.token:
        return "complete"
    if not end.rest.removeprefix(end.text) and padding == end.token:
        token = tokenizer.convert_ids_to_tokens(padding)
        say(f"{name}: {token!r} pads and ends turns; transformers reads the reward before it, and so does headwater")
        return "never"
    return "template"


def say_place(tokenizer: Tokenizer, rule: EndToken) -> None:
    """Print where complete responses are rewarded, unless the template ends with the end of the turn."""
    end = turn_end(tokenizer) if tokenizer.chat_template else None
    if end is None or rule == "never" or end.rest == end.text:
        return
    behind = end.rest.removeprefix(end.text)
    if rule == "template":
        say(f"rewards: read after the {behind!r} that the template writes; --end complete: at {end.text!r}")
    elif end.rest.startswith(end.text):
        say(f"rewards: read at {end.text!r}, before the {behind!r} that the template writes; --end template: after it")
    else:
        say(f"rewards: read at {end.text!r}, which the template does not write; --end template: without it")


def _trained(path: Path) -> Facts:
    """Return the facts of a training run; for adapters inside a run, those of that run."""
    return runs.facts_of(path) or (runs.facts_of(path.parent) if path.name == "adapter" else {})


def _classifier(name: str) -> Any:
    """Return the configuration of a causal sequence classifier, of the model that adapters are for; None for others."""
    base, adapter = name, adapter_files.config_of(name)
    while adapter is not None:
        if adapters.head_of(base, adapter) != "reward":
            return None
        base = adapter_files.base_of(base, adapter)
        adapter = adapter_files.config_of(base)
    config = heads.config_of(base)
    classifies = base != name or heads.head_of(name, config) == "reward"
    return config if classifies else None
