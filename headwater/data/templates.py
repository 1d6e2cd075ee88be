"""Chat templates: named ones, those of a file, and how a tokenizer's own renders turns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jinja2 import Environment, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser

from headwater.console import say
from headwater.errors import DataError, ModelError, UsageError, first_line

if TYPE_CHECKING:
    from headwater.data.tokenizers import Tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PLAIN = (
    "{{ cls_token }}{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}"
    "{{ sep_token or '\n\n' }}{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)
"""Roles in plain text. Every turn ends with the token that separates, which encoders have, or with an empty line."""

NAMED = {"chatml": CHATML, "plain": PLAIN}
"""What `--chat-template` knows by name."""

FLAG = "--chat-template"
TOOL_USE = "tool_use"
"""Name of a template for conversations with tools, among several of a tokenizer."""
SENTINEL = "headwater sentinel 7f3a9c"
"""Stands for a response while a template is examined; plain enough that no template changes it."""

Turn = dict[str, Any]


class RefusedError(DataError):
    """Raised for a conversation that the chat template refuses."""


BEGINNING = "{{ bos_token }}"
"""Prefix of a named template for a tokenizer that begins every text with this token."""

DATE = re.compile(r"strftime_now\(\s*(['\"])((?:(?!\1).)*)\1\s*\)")


class TakesTemplate(Protocol):
    """Interface of the settings of a command that renders conversations."""

    @property
    def chat_template(self) -> str | None:
        """Value of `--chat-template`: a name or a file; None: every tokenizer's own."""


ConfigT = TypeVar("ConfigT", bound=TakesTemplate, contravariant=True)
T = TypeVar("T")

_given: ContextVar[str | None] = ContextVar("chat_template", default=None)


@contextmanager
def given_template(given: str | None) -> Iterator[None]:
    """Give every tokenizer loaded in the block the chat template of this name or file; None: its own."""
    before = _given.set(given)
    try:
        yield
    finally:
        _given.reset(before)


def renders_conversations(run: Callable[[ConfigT], T]) -> Callable[[ConfigT], T]:
    """Let a command run under its `--chat-template`: what models are loaded for has no say in how they are prompted."""

    @wraps(run)
    def under_template(config: ConfigT) -> T:
        with given_template(config.chat_template):
            return run(config)

    return under_template


def give(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that was loaded, with the template that the command gives, if any. Errors: `UsageError`."""
    given = _given.get()
    if given is not None:
        tokenizer.chat_template = chosen_template(given, tokenizer)
        if given == "chatml":
            _say_markers(tokenizer)
    return tokenizer


def _say_markers(tokenizer: Tokenizer) -> None:
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    text = [mark for mark in ("<|im_start|>", "<|im_end|>") if mark not in known]
    if text:
        end = f"a turn ends with {tokenizer.eos_token}" if "<|im_end|>" in text else "a turn ends with <|im_end|>"
        say(f"chat template: {' and '.join(text)} are ordinary text for {_name(tokenizer)} · {end}")


def chosen_template(given: str, tokenizer: Tokenizer) -> str:
    """Return the template that `--chat-template` gives: a name, one of several of the tokenizer's, or a file's text.

    Errors: `UsageError` for what is neither, or a file that is no Jinja template.
    """
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    if given in own:
        return str(own[given])
    if given in NAMED:
        return (BEGINNING if _begins(tokenizer) else "") + NAMED[given]
    path = Path(given)
    if not path.is_file():
        names = ", ".join([*NAMED, *own])
        raise UsageError(f"{FLAG} {given}", "is neither a template's name nor a file", f"names: {names}")
    try:
        text = path.read_text(encoding="utf-8")
        Environment(extensions=[_Syntax, loopcontrols]).parse(text)
    except (OSError, UnicodeDecodeError, TemplateSyntaxError) as error:
        raise UsageError(f"{FLAG} {given}", f"is no Jinja template: {first_line(error)}") from error
    return text


def _begins(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer puts its BOS token in front of every text, as its model was pretrained."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


class _Syntax(Extension):
    """Reads the block {% generation %}, which transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def current_template(tokenizer: Tokenizer) -> str:
    """Return the template that renders a tokenizer's conversations; its date is that of the first call.

    A date that changes at midnight would give one run two kinds of prompts. Errors: `ModelError` where there is none,
    or several without a default.
    """
    return _dated(_source(tokenizer))


def _source(tokenizer: Tokenizer) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict) and "default" not in template:
        names = ", ".join(sorted(template)) or "none"
        raise ModelError(_name(tokenizer), "has chat templates without a default", names, f"choose one: {FLAG} NAME")
    if not template:
        raise ModelError(_name(tokenizer), "has no chat template", f"give {FLAG} chatml, plain, or a file")
    return str(template["default"] if isinstance(template, dict) else template)


def tool_template(tokenizer: Tokenizer) -> str | None:
    """Return the template that a tokenizer has for conversations with tools, as `current_template`; None without one.

    transformers takes it by its name wherever tools are given.
    """
    templates = tokenizer.chat_template
    found = templates.get(TOOL_USE) if isinstance(templates, dict) else None
    return None if found is None else _dated(found)


def _name(tokenizer: Tokenizer) -> str:
    return getattr(tokenizer, "name_or_path", "") or "tokenizer"


@cache
def _dated(template: str) -> str:
    """Replace calls for the date by the current date."""
    now = datetime.now()  # the local date, as transformers has it
    return DATE.sub(lambda match: repr(now.strftime(match[2])), template)


def assistant(text: str) -> Turn:
    """Return an assistant turn."""
    return {"role": "assistant", "content": text}


def _changes(turn: Turn) -> Iterator[tuple[str, Turn]]:
    """Yield a turn with another call of a tool, other arguments, or another result, and what differs."""
    if turn["role"] == "tool":
        yield "the results of tools", {**turn, "content": SENTINEL}
    calls = turn.get("tool_calls", ())
    for place, call in enumerate(calls):
        for name, value in (("name", SENTINEL), ("arguments", {SENTINEL: SENTINEL})):
            changed = {**call, "function": {**call["function"], name: value}}
            yield "calls of tools", {**turn, "tool_calls": [*calls[:place], changed, *calls[place + 1 :]]}
    if calls and turn["content"]:
        yield "the text beside a call", {**turn, "content": SENTINEL}


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        """Take the template, or another one than the tokenizer's own. Errors: `ModelError` where there is none."""
        self.tokenizer = tokenizer
        self._text = template or current_template(tokenizer)
        self.tells_date = "strftime_now" in _source(tokenizer)
        self._in_parts = False
        self.closing = self._examined()
        """The text after a response; None where the template refuses a plain conversation, or omits the response."""

    def render(self, turns: Sequence[Turn], *, generate: bool = False, tools: Sequence[Turn] = ()) -> str:
        """Render turns, with the header of an answer where one is to be generated. Errors: `RefusedError`.

        `tools` are those that the model may call.
        """
        if self._in_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                list(turns),
                tools=list(tools) or None,
                tokenize=False,
                chat_template=self._text,
                add_generation_prompt=generate,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise RefusedError(first_line(error)) from error
        return str(text)

    def check_tools(self, turns: Sequence[Turn], tools: Sequence[Turn]) -> None:
        """Errors: `RefusedError` for a template that leaves out tools, a call of one, or the result of a call.

        Each is replaced in turn: a template that uses it writes another text then.
        """
        prompt = self.render(turns, tools=tools)
        other = [{"type": "function", "function": {"name": SENTINEL, "description": "", "parameters": {}}}]
        left_out = ["tools"] if tools and self._same(prompt, turns, other) else []
        for place, turn in enumerate(turns):
            for what, changed in _changes(turn):
                if what not in left_out and self._same(prompt, [*turns[:place], changed, *turns[place + 1 :]], tools):
                    left_out.append(what)
        if left_out:
            raise RefusedError(f"the chat template leaves out {' and '.join(left_out)}; give one with tools: {FLAG}")

    def _same(self, prompt: str, turns: Sequence[Turn], tools: Sequence[Turn]) -> bool:
        """Return whether turns are rendered as `prompt`; False where the template refuses them."""
        try:
            return self.render(turns, tools=tools) == prompt
        except RefusedError:
            return False

    def _examined(self) -> str | None:
        example = [{"role": "user", "content": "…"}, assistant(SENTINEL)]
        for self._in_parts in (False, True):  # templates that take images too may read lists of parts alone
            try:
                _, found, after = self.render(example).rpartition(SENTINEL)
            except RefusedError:
                continue
            if found:
                return after
        self._in_parts = False
        return None

    @cached_property
    def opening(self) -> str:
        """The text between the header of an answer and the response, which a model has to generate."""
        if self._heads is None or self.has_another_head:
            return ""
        prompt, before = self._heads
        opening = before[len(prompt) :]
        return opening if self.has_generation_prompt or opening.isspace() else ""

    @property
    def has_another_head(self) -> bool:
        """Whether past answers have another header than one to be generated (DeepSeek R1), which is used then."""
        return self._heads is not None and not self._heads[1].startswith(self._heads[0])

    @cached_property
    def _heads(self) -> tuple[str, str] | None:
        """The texts before an answer to be generated and before a past one; None for a template that refuses both."""
        question: list[Turn] = [{"role": "user", "content": "…"}]
        try:
            prompt = self.render(question, generate=True)
            return prompt, self.render([*question, assistant(SENTINEL)]).rpartition(SENTINEL)[0]
        except RefusedError:
            return None

    @cached_property
    def own_system(self) -> str:
        """The text of the system turn that it adds to conversations without one; empty where it adds none.

        What it writes beside the text of a given system turn (Llama 3 the date) is no turn of its own.
        """
        question: list[Turn] = [{"role": "user", "content": "…"}]
        try:
            alone = self.render(question, generate=True)
            before, given, after = self.render(
                [{"role": "system", "content": SENTINEL}, *question], generate=True
            ).partition(SENTINEL)
        except RefusedError:
            return ""
        end = len(alone) - len(after)
        replaces = bool(given) and len(before) <= end and alone.startswith(before) and alone.endswith(after)
        return alone[len(before) : end].strip() if replaces else ""

    @cached_property
    def has_generation_prompt(self) -> bool:
        """Whether it writes the header of an answer to be generated; some write one before past answers only."""
        question: list[Turn] = [{"role": "user", "content": "…"}]
        try:
            return self.render(question, generate=True) != self.render(question)
        except RefusedError:
            return True
