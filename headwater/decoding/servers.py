"""Length control with two OpenAI-compatible completion servers: T tokens from one, the rest from the other.

All first parts are requested, then all rests; each reply is in the journal before it is used. Prompt and first tokens
are sent in one of two ways:

- `ids`: as token ids, exactly, to servers that accept and return them (vLLM, with `return_token_ids`).
- `text`: as text, which any server accepts and tokenizes again. The prompt is exact (prompts for which it would not be
  are left out and counted). Where first part and rest meet the text is exact, while its tokens may be split
  differently. Tokenizers whose pieces lose their space when decoded separately are refused; an incomplete character at
  the end of the first part is dropped and counted.

Servers do not return distributions over the vocabulary, so KL is missing from the statistics, rather than zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from headwater.console import say, track
from headwater.data.generated import HALF, ResponseTexts
from headwater.data.sampling import Asked, Drawn, seed_of
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.turns import turn_end
from headwater.decoding.decoders import MeasuredResponse, Prompts, key_of
from headwater.decoding.options import DecodingOptions, ServerOptions
from headwater.decoding.strategies import LengthControl, Strategy
from headwater.decoding.token_statistics import TokenStatistics
from headwater.errors import ModelError, NetworkError
from headwater.journal import Journal
from headwater.network.endpoint import Endpoint, Refusals, RefusedError, in_parallel

AT_ONCE = 8


class Completion(NamedTuple):
    """One server's part of a response."""

    text: str
    ids: list[int] | None
    tokens: int
    """Number of tokens, the end token included."""
    complete: bool


class CompletionRequest(NamedTuple):
    """One request: a row, its tokens so far, and the maximum number of new tokens."""

    name: str
    seed: int
    prompt: str | list[int]
    tokens: int


class ServerDecoder:
    """Two servers, and the prompts that they accept."""

    def __init__(
        self,
        names: tuple[str, str],
        servers: ServerOptions,
        prompts: Sequence[Asked],
        options: DecodingOptions,
        journal: Journal,
    ) -> None:
        """Encode the prompts for `names`, policy and reference. Errors: `ModelError` for a tokenizer unfit for text."""
        self._servers, self._options, self._journal = servers, options, journal
        self._tokenizer = load_tokenizer(str(servers.tokenizer), ())
        address = str(servers.endpoint)
        self._policy = Endpoint(address), names[0]
        self._reference = Endpoint(servers.reference_endpoint or address), names[1]
        encoded = Prompts(prompts, self._tokenizer, 10**9)
        self._texts, self._encoded = ResponseTexts(self._tokenizer), encoded.ids
        self._given: dict[str, str | list[int]] = dict(encoded.ids)
        if self._as_text:
            _check_pieces(self._tokenizer)
            texts = {key: _as_text(ids, self._tokenizer) for key, ids in encoded.ids.items()}
            self._given = {key: text for key, text in texts.items() if text is not None}
        self.prompts = [one for one in encoded.kept if one.key in self._given]
        # Prompts that the servers would tokenize differently.
        self.dropped = {"not_as_text": len(encoded.kept) - len(self.prompts)}
        self.figures: dict[str, float] = {}
        self._refusals = Refusals(answered=len(journal) > 0)

    @property
    def _as_text(self) -> bool:
        return self._servers.carry != "ids"

    def responses(self, strategy: Strategy, seed: int, draws: int = 0) -> Iterator[MeasuredResponse]:
        """Request every response, and yield them in the order of the prompts and their draws."""
        assert isinstance(strategy, LengthControl) and not draws  # the command has seen to it
        rows = [(one, draw) for one in self.prompts for draw in range(self._options.n)]
        began, most = time.perf_counter(), self._options.max_new_tokens
        first = min(strategy.first, most)
        begun = [
            CompletionRequest(key_of(one.key, draw), seed_of(seed, one.key, draw), self._given[one.key], first)
            for one, draw in rows
        ]
        firsts = self._asked(self._policy, "first", begun)
        rows = [row for row in rows if key_of(row[0].key, row[1]) in firsts]
        gone_on = [
            CompletionRequest(
                name, seed_of(seed, one.key + ":rest", draw), self._so_far(one, firsts[name]), most - first
            )
            for one, draw in rows
            if not firsts[name := key_of(one.key, draw)].complete
        ]
        rests = self._asked(self._reference, "rest", gone_on)
        unanswered = {one.name for one in begun if one.name not in firsts}
        unanswered |= {one.name for one in gone_on if one.name not in rests}
        rows = self._answered(unanswered)
        tokens = sum(part.tokens for part in (*firsts.values(), *rests.values()))
        self.figures = {"tokens": tokens, "tokens_per_second": tokens / (time.perf_counter() - began)}
        halves = sum(name in rests and self._as_text and part.text.endswith(HALF) for name, part in firsts.items())
        if halves:
            say(f"half a character was dropped where the reference took over, in {halves:,} of {len(rows):,} responses")
        for one, draw in rows:
            name = key_of(one.key, draw)
            yield self._answer(one, draw, firsts[name], rests.get(name))

    def _answered(self, unanswered: set[str]) -> list[tuple[Asked, int]]:
        """Leave out the prompts of which a server refused a draw, and return the others with their draws."""
        n = self._options.n
        kept = [p for p in self.prompts if not unanswered.intersection(key_of(p.key, draw) for draw in range(n))]
        left_out = len(self.prompts) - len(kept)
        if left_out:
            say(f"{left_out} prompts were refused: {self._refusals.summary()}")
            problem = next(iter(self._refusals.counts))
            self.dropped[problem] = self.dropped.get(problem, 0) + left_out
        self.prompts = kept
        if not kept:
            raise NetworkError(self._policy[0].url, f"no prompt was answered: {self._refusals.summary()}")
        return [(one, draw) for one in kept for draw in range(n)]

    def _asked(
        self, whom: tuple[Endpoint, str], part: str, wanted: Sequence[CompletionRequest]
    ) -> dict[str, Completion]:
        """Request from one server what is not in the journal; returns all parts by row."""
        left = [one for one in wanted if one.tokens and f"{part} {one.name}" not in self._journal]
        at_once = self._servers.concurrency or AT_ONCE
        found = in_parallel(lambda one: self._ask(whom, one), left, at_once)
        for one, said in track(found, f"the {part} of responses", len(left)):
            if said is not None:
                self._journal[f"{part} {one.name}"] = said._asdict()
                self._refusals.answered = True
        self._refusals.check()
        nothing = Completion("", [], 0, False)
        return {
            one.name: Completion(**self._journal[f"{part} {one.name}"]) if one.tokens else nothing
            for one in wanted
            if not one.tokens or f"{part} {one.name}" in self._journal
        }

    def _ask(self, whom: tuple[Endpoint, str], wanted: CompletionRequest) -> Completion | None:
        """Request one part; None where the server refuses only this request."""
        (endpoint, model), options = whom, self._options
        body: dict[str, Any] = {"model": model, "prompt": wanted.prompt, "max_tokens": wanted.tokens}
        body |= {"temperature": options.temperature, "top_p": options.top_p, "seed": wanted.seed}
        body |= {"top_k": options.top_k} if options.top_k is not None else {}
        body |= {"min_p": options.min_p} if options.min_p else {}
        body |= {} if self._as_text else {"return_token_ids": True}
        try:
            answer = endpoint.post("/completions", body)
        except RefusedError as error:
            self._refusals.take(error)
            return None
        try:
            choice, tokens = answer["choices"][0], int(answer["usage"]["completion_tokens"])
            ids = None if self._as_text else [int(token) for token in choice["token_ids"]]
            complete = choice["finish_reason"] == "stop"
            return Completion(str(choice["text"] or ""), ids, tokens, complete)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            lacks = f"answered without {error.args[0]!r}" if isinstance(error, KeyError) else "answered otherwise"
            needs = "expected choices with text and finish_reason, and usage; with --carry ids also token_ids"
            raise NetworkError(f"{endpoint.url}/completions", lacks, needs) from error

    def _so_far(self, one: Asked, first: Completion) -> str | list[int]:
        given = self._given[one.key]
        return given + _whole(first.text) if isinstance(given, str) else [*given, *(first.ids or [])]

    def _answer(self, one: Asked, draw: int, first: Completion, rest: Completion | None) -> MeasuredResponse:
        parts = [first, rest] if rest else [first]
        share = [1.0] * first.tokens + [0.0] * (rest.tokens if rest else 0)
        ids = None if self._as_text else [token for part in parts for token in part.ids or []]
        text = _whole(first.text) + rest.text if rest and self._as_text else "".join(part.text for part in parts)
        same_tokens, ends = None, []
        if ids is not None:  # pieces that were decoded apart may have lost a space
            prompt = self._encoded[one.key]
            said = ids[:-1] if parts[-1].complete and ids and ids[-1] in turn_end(self._tokenizer).stop_ids else ids
            text, same_tokens = self._texts.of(one.prompt, prompt, said)
            ends = self._texts.ends(text, prompt, ids)
        response = Drawn(text, parts[-1].complete, None, same_tokens)
        return MeasuredResponse(one, draw, response, ids, ends, TokenStatistics(share, [], [], [], []))


def _whole(text: str) -> str:
    """Return a text without an incomplete character at its end."""
    return text.rstrip(HALF)


def _check_pieces(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer whose pieces, decoded separately, do not join to the text. Errors: `ModelError`."""
    ids = tokenizer("The forest is old and deep", add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids)
    for cut in range(1, len(ids)):
        if tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:]) != whole:
            fix = "use servers that take and give token ids, with --carry ids"
            raise ModelError(
                "--carry text", "this tokenizer's pieces lose their space when they are decoded apart", fix
            )


def _as_text(ids: list[int], tokenizer: Tokenizer) -> str | None:
    """Return the text that a server tokenizes to these ids; None where there is none.

    Servers prepend the beginning-of-text token if the tokenizer does.
    """
    text: str = tokenizer.decode(ids)
    start = tokenizer.bos_token or ""
    for given in (text, text.removeprefix(start)):
        if tokenizer(given)["input_ids"] == ids:
            return given
    return None
