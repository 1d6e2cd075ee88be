"""Preferences: the typed rows that every other module works on, once a row has been read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from xxhash import xxh3_128_hexdigest

Role = Literal["system", "user", "assistant", "tool"]
Side = Literal["chosen", "rejected"]

PAIR_COLUMNS = ("margin",)
"""Columns of the data that become numbers of a pair, under the same names, in every layout.

A name that is added here is read, checked, written and passed to the losses that name it in `needs`.
"""
NO_COLUMNS: Mapping[str, float] = {}
"""Columns of a row that has none; one object for all of them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    extra: str = ""
    """JSON of what a chat template takes beside role and content, an object: `tool_calls` of an assistant,
    `tool_call_id` and `name` of a tool's result, and in one message of a prompt the `tools` that may be called.
    """

    @property
    def extras(self) -> dict[str, Any]:
        """The values of `extra` by name."""
        return json.loads(self.extra) if self.extra else {}

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that distinguish it from other turns, for hashes."""
        return (self.role, self.content, self.extra) if self.extra else (self.role, self.content)

    @property
    def fields(self) -> dict[str, Any]:
        """The message as chat templates and servers take it."""
        return {"role": self.role, "content": self.content} | (self.extras if self.extra else {})

    @property
    def shown(self) -> str:
        """The content as a person reads it, behind it a line for each call of a tool, or what else `extra` holds."""
        if not self.extra:
            return self.content
        lines = [self.content] if self.content else []
        for name, value in self.extras.items():
            if name == "tool_calls":
                lines += (f"call {_json(call['function'])}" for call in value)
            else:
                lines.append(f"{name}: {value if isinstance(value, str) else _json(value)}")
        return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def fields_of(prompt: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the messages of a prompt, and the tools that may be called, as chat templates and servers take them."""
    turns = [message.fields for message in prompt]
    if not any([message.extra for message in prompt]):  # most prompts
        return turns, []
    return turns, [tool for turn in turns for tool in turn.pop("tools", ())]


def question_of(prompt: Sequence[Message]) -> str:
    """Return the last question of a user as a person reads it, with the calls of tools and their results behind it."""
    last = max((place for place, message in enumerate(prompt) if message.role == "user"), default=len(prompt))
    behind = [f"[{m.role}] {m.shown}" for m in prompt[last + 1 :] if m.extra or m.role == "tool"]
    return "\n".join([*(message.content for message in prompt[last : last + 1]), *behind])


@dataclass(frozen=True, slots=True)
class Response:
    """One answer: the last assistant turn, and with `--turns whole` the turns between the prompt and it."""

    text: str
    """Text of the last turn."""
    score: float | None = None
    """Given by a person or a reward model; None when the data holds none."""
    complete: bool = True
    """False once truncated: such a response gets no end-of-turn token."""
    before: tuple[Message, ...] = ()
    """Turns before the last one, the first of them the assistant's; turns of users and results of tools among them."""
    extra: str = ""
    """`Message.extra` of the last turn, where it calls tools."""

    @property
    def is_text(self) -> bool:
        """Whether it is one text: no turns before it, and no calls of tools."""
        return not self.before and not self.extra

    @property
    def turns(self) -> tuple[Message, ...]:
        """All its turns, as they follow the prompt."""
        return (*self.before, Message("assistant", self.text, self.extra))

    @property
    def said(self) -> tuple[str, ...]:
        """The texts of the assistant, turn by turn: what a cut counts."""
        return (*(turn.content for turn in self.before if turn.role == "assistant"), self.text)

    @property
    def words(self) -> str:
        """The texts of the assistant as one text."""
        return "\n".join(self.said) if self.before else self.text

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that distinguish it from other responses, for hashes."""
        if not self.before and not self.extra:  # most responses
            return (self.text,)
        # Half a character begins what no text of a record holds.
        return (self.text, f"\ud800{json.dumps([[turn.texts for turn in self.before], self.extra])}")

    @property
    def shown(self) -> str:
        """The response as a person reads it: its turns under their roles, with calls of tools."""
        if self.is_text:
            return self.text
        *before, last = (turn.shown for turn in self.turns)
        roles = [turn.role for turn in self.turns[1:]]
        return "".join(f"{text}\n\n[{role}]\n" for text, role in zip(before, roles, strict=True)) + last


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """Fields of every row: a conversation that waits for an answer."""

    prompt: tuple[Message, ...]
    id: str = ""
    """Name of the row in messages and records, such as `harmless-base_test:1255`. It is the data's own label where
    there is one, which several rows may share: rows are joined by `key`.
    """
    source: str = ""
    condition: str = ""
    """Condition of a conditional model: an aspect, a group of users. It is not part of the conversation's id, so that a
    prompt under several conditions stays on one side of a split.
    """
    uncut_key: str = field(default="", compare=False, repr=False)
    """The key that the row had before its responses were cut; empty for a row as it was read."""

    @property
    def key(self) -> str:
        """Identifies the row in random draws and between runs: a hash of its texts, the same for every cut of it.

        Independent of the row's name, file and order. 32 hexadecimal digits.
        """
        return self.uncut_key or xxh3_128_hexdigest(b"".join(_sized(self._texts())))

    def _texts(self) -> Iterator[str]:
        """Yield the texts that distinguish rows, in a fixed order."""
        for message in self.conversation:
            yield from message.texts

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The prompt as a model sees it: the condition is the system turn, or appended to an existing one."""
        if not self.condition:
            return self.prompt
        before = self.prompt[:1] if self.prompt[:1] and self.prompt[0].role == "system" else ()
        system = "\n\n".join([*(message.content for message in before), self.condition])
        extra = before[0].extra if before else ""
        return (Message("system", system, extra), *self.prompt[len(before) :])

    @property
    def conversation_id(self) -> str:
        """Identifies the dialogues that begin with the same question; see `conversation_id_of`."""
        return conversation_id_of(self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Prompted):
    """A row for training: a prompt with responses, of which the better ones are known."""

    @property
    def responses(self) -> tuple[Response, ...]:
        """The responses, of a pair the preferred one first."""
        raise NotImplementedError

    @property
    def sides(self) -> tuple[Side, ...]:
        """What each of `responses` is."""
        raise NotImplementedError

    def answered(self, responses: Sequence[Response]) -> Self:
        """Return the row with cut responses in the place of its `responses`; its `key` stays."""
        raise NotImplementedError

    def _texts(self) -> Iterator[str]:
        yield from Prompted._texts(self)
        for side, response in zip(self.sides, self.responses, strict=True):
            yield side
            yield from response.texts

    @property
    def loss_columns(self) -> Mapping[str, float]:
        """Numbers of the row by name, for the losses that name them in `needs`; a number the row lacks is left out."""
        return NO_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Example):
    """After `prompt`, `chosen` was preferred to `rejected`."""

    chosen: Response
    rejected: Response
    columns: Mapping[str, float] = field(default_factory=lambda: NO_COLUMNS, hash=False)
    """Further numbers that the data gives of the pair, by name. `margin`: how much better the chosen response is."""

    @property
    def responses(self) -> tuple[Response, ...]:  # noqa: D102 - as the base class says
        return (self.chosen, self.rejected)

    @property
    def sides(self) -> tuple[Side, ...]:  # noqa: D102
        return ("chosen", "rejected")

    def answered(self, responses: Sequence[Response]) -> Self:  # noqa: D102
        chosen, rejected = responses
        return replace(self, chosen=chosen, rejected=rejected, uncut_key=self.key)

    @property
    def loss_columns(self) -> Mapping[str, float]:
        """The columns, with `score_gap`: the margin, or the score of the chosen response less that of the other."""
        if "margin" in self.columns:
            return {**self.columns, "score_gap": self.columns["margin"]}
        if self.chosen.score is None or self.rejected.score is None:
            return self.columns
        return {**self.columns, "score_gap": self.chosen.score - self.rejected.score}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired(Example):
    """One response, and whether it is a desirable one: what KTO learns from."""

    response: Response
    label: bool

    @property
    def responses(self) -> tuple[Response, ...]:  # noqa: D102 - as the base class says
        return (self.response,)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Where a pair would have it: a desirable response counts as a chosen one, an undesirable one as rejected."""
        return ("chosen",) if self.label else ("rejected",)

    def answered(self, responses: Sequence[Response]) -> Self:  # noqa: D102
        (response,) = responses
        return replace(self, response=response, uncut_key=self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates(Prompted):
    """Several responses to one prompt, each with a score where the data holds one."""

    responses: tuple[Response, ...]

    def _texts(self) -> Iterator[str]:
        yield from Prompted._texts(self)
        for response in self.responses:
            yield from response.texts


def _sized(texts: Iterator[str]) -> Iterator[bytes]:
    """Yield texts as bytes, each after its length, so that different sequences of texts never give the same bytes."""
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        yield len(raw).to_bytes(8, "little")
        yield raw


Record = Preference | Candidates | Unpaired
"""The record of one row of data."""


def conversation_id_of(prompt: tuple[Message, ...]) -> str:
    """Hash a conversation up to and including its first user turn, in hexadecimal.

    It is the unit of splits and of the bootstrap: dialogues that begin with one question share it, so a longer one in
    the training set cannot leak into the held-out set. Case, white space and tools are ignored.
    """
    turns = []
    for message in prompt:
        turns.append(f"{message.role}:{' '.join(message.content.casefold().split())}")
        if message.role == "user":
            break
    return hashlib.sha256("\n".join(turns).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def held_out(conversation_id: str, fraction: float, seed: int) -> bool:
    """Return whether a conversation belongs to the held-out part, by a hash, so that any file splits the same way."""
    draw = hashlib.sha256(f"{seed}:{conversation_id}".encode()).digest()
    return int.from_bytes(draw[:8], "big") < fraction * 2**64
