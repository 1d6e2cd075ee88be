"""Sampling several responses a prompt: options, prompts, and the journal from which a stopped job continues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from headwater import journal
from headwater.data.preference import Message, Prompted, Response, fields_of
from headwater.data.reading import RowCounts
from headwater.errors import NetworkError, UsageError
from headwater.network import replies
from headwater.network.endpoint import Endpoint, Refusals, RefusedError, in_parallel


@dataclass(frozen=True)
class Sampling:
    """Sampling options. A model's own generation settings are ignored."""

    n: int = 8
    """Number of independent responses a prompt; equal ones may be among them."""
    temperature: float = 1.0
    """Divides the logits; 0 selects the most likely token, with --n 1."""
    top_p: float = 1.0
    """Draw from the most likely tokens that together have this probability; 1 is the model's own distribution."""
    max_new_tokens: int = 512
    """Maximum number of tokens; a response that reaches it is marked as incomplete."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        for flag, value, fits, expected in (
            ("--n", self.n, self.n >= 1, "1 or more"),
            ("--temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 or more"),
            ("--top-p", self.top_p, 0 < self.top_p <= 1, "above 0 and up to 1"),
            ("--max-new-tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more"),
        ):
            if not fits:
                raise UsageError(f"{flag} {value}", f"expected {expected}")
        if self.temperature == 0 and (self.n > 1 or self.top_p < 1):
            raise UsageError("--temperature 0", "takes the most likely token", "add --n 1, and leave --top-p out")


class Drawn(NamedTuple):
    """One sampled response."""

    text: str
    complete: bool
    """Whether the model ended it."""
    tokens: int | None = None
    """Its length without the end token (local models); None where a server does not report it."""
    same_tokens: bool | None = None
    """Whether the text is encoded into the tokens that were generated; None where a server does not return them."""

    def response(self, score: float | None = None) -> Response:
        """Return it as a response of a data set."""
        return Response(self.text, score, self.complete)


class Asked(NamedTuple):
    """A prompt to draw responses for."""

    prompt: tuple[Message, ...]
    id: str
    source: str

    @property
    def key(self) -> str:
        """Identifies the prompt in the journal and in its seeds, by its text."""
        return xxhash.xxh3_64_hexdigest(orjson.dumps(self.messages()))

    def messages(self) -> list[dict[str, Any]]:
        """Return the prompt as messages; the tools that may be called are in one of them."""
        return [message.fields for message in self.prompt]

    def request(self) -> dict[str, Any]:
        """Return the prompt in the form of a chat server: messages, and tools where there are any."""
        turns, tools = fields_of(self.prompt)
        for call in (call for turn in turns for call in turn.get("tool_calls", ())):
            given = call["function"].get("arguments", {})
            call["function"]["arguments"] = given if isinstance(given, str) else orjson.dumps(given).decode()
        return {"messages": turns} | ({"tools": tools} if tools else {})


def asked(records: Iterable[Prompted]) -> tuple[list[Asked], RowCounts]:
    """Return every different prompt once, in the order of the data, with the row counts."""
    found: dict[tuple[Message, ...], Asked] = {}
    row_counts = RowCounts()
    for record in records:
        row_counts.rows_in += 1
        prompt = record.conversation
        if prompt in found:
            row_counts.dropped["repeated_prompt"] += 1
        else:
            found[prompt] = Asked(prompt, record.id, record.source)
    row_counts.kept = len(found)
    return list(found.values()), row_counts


def seed_of(seed: int, key: str, draw: int) -> int:
    """Return the seed of one draw for one prompt, 31 bits, independent of other rows, batches and draws."""
    return xxhash.xxh3_64_intdigest(f"{seed}:{key}:{draw}".encode()) >> 33


def uniforms(seed: int, key: str, draws: int, tokens: int) -> NDArray[np.float64]:
    """Return the random numbers that decide the tokens of a prompt's draws, [draws, tokens] in [0, 1)."""
    rows = [np.random.default_rng(seed_of(seed, key, draw)).random(tokens) for draw in range(draws)]
    return np.array(rows).reshape(draws, tokens)


def ask(endpoint: Endpoint, model: str, one: Asked, sampling: Sampling, seed: int) -> list[Drawn]:
    """Draw from a server, one request a draw: not every server grants several, and those that do cache the prompt.

    Every draw has its own seed, which a server may ignore. Errors: `NetworkError`.
    """
    drawn = []
    for draw in range(sampling.n):
        body = {
            "model": model,
            **one.request(),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed_of(seed, one.key, draw),
        }
        reply = endpoint.post("/chat/completions", body)
        try:
            found = replies.read(reply)
        except ValueError as error:
            if problem := replies.error_of(reply):
                raise RefusedError(200, problem, endpoint.url, str(error)) from error
            raise NetworkError(endpoint.url, str(error), "expected an OpenAI-compatible chat server") from error
        # A refusal is an answer of the model; a tool call and an empty reply are answers without a text.
        drawn.append(Drawn(found.text or found.refusal, found.complete, _length(reply)))
    return drawn


def _length(reply: Mapping[str, Any]) -> int | None:
    usage = reply.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def ask_many(
    endpoint: Endpoint,
    model: str,
    prompts: Sequence[Asked],
    sampling: Sampling,
    seed: int,
    at_once: int,
    refusals: Refusals,
) -> Iterator[tuple[Asked, list[Drawn]]]:
    """Yield every prompt with its draws as they arrive, without those that the server refuses, counted in `refusals`.

    Errors: those of `in_parallel`, and where the server refuses everything.
    """

    def drawn(one: Asked) -> list[Drawn]:
        try:
            return ask(endpoint, model, one, sampling, seed)
        except RefusedError as error:
            refusals.take(error)
            return []

    for one, draws in in_parallel(drawn, prompts, at_once):
        if draws:
            refusals.answered = True
            yield one, draws
    refusals.check()


class Journal(journal.Journal):
    """Journal of draws, a line a prompt."""

    def add(self, key: str, drawn: Sequence[Drawn]) -> None:
        """Append the draws of a prompt; they are on disk when this returns."""
        self[key] = [list(one) for one in drawn]

    def drawn(self, key: str) -> list[Drawn]:
        """Return the draws of a prompt."""
        return [Drawn(*one) for one in self[key]]
