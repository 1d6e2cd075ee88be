"""Client of LLM judges on a chat server: requests run in parallel, and every reply is stored before it is used.

A comparison whose request gets no usable answer (too long for the model, refused, empty, without a verdict) has no
verdict, and is counted with the reason. An error that concerns every request ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import xxhash

from headwater.errors import ModelError, NetworkError
from headwater.evaluation.judgements import Judgement
from headwater.evaluation.judges import Asking, Comparison, Reply
from headwater.evaluation.verdicts import Shown, Verdict
from headwater.journal import Journal
from headwater.network import replies
from headwater.network.endpoint import UNCLEAR, Endpoint, Refusals, RefusedError, in_parallel

NO_LOG_PROBS = "no_log_probs"
NOT_AGAIN = (replies.TOO_LONG, replies.FILTERED, UNCLEAR, NO_LOG_PROBS)
"""Problems that a reminder does not solve. All but the last belong to requests that were not charged."""


class JudgeRequest(NamedTuple):
    """One vote that an LLM judge is asked for: a comparison in one order."""

    comparison: Comparison
    swapped: bool
    shown: Shown


class JudgeClient:
    """Sends requests to a server; replies are stored in a journal by the content of their request."""

    def __init__(self, endpoint: Endpoint, journal: Journal, at_once: int) -> None:
        self._endpoint, self._journal, self._at_once = endpoint, journal, at_once
        self.refusals = Refusals(answered=len(journal) > 0)

    def judge(
        self,
        judge: Asking,
        comparisons: Sequence[Comparison],
        watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
    ) -> list[Judgement]:
        """Return the judgements of all votes; equal answers are ties, without a request.

        A reply without a verdict gets one reminder; after that, `preference` is None, with the `problem`. The same
        holds for a request that the server refuses while it answers others. `watch` wraps the requests, for a progress
        bar. Errors: `NetworkError`; replies received before it stay in the journal.
        """
        calls = list(votes(judge, comparisons))
        first = self._replies([judge.body(call.shown) for call in calls], watch)
        parsed = _parsed(judge, first, calls)
        again = [place for place, one in enumerate(parsed) if one.verdict is None and one.problem not in NOT_AGAIN]
        bodies = [reminded(judge, calls[place].shown, first[place]) for place in again]
        second = _parsed(judge, self._replies(bodies, watch), [calls[place] for place in again])
        for place, one in zip(again, second, strict=True):
            if one.problem not in NOT_AGAIN:  # a reminder may not fit where the request did
                parsed[place] = one
        found = [_judgement(judge.name, call, one) for call, one in zip(calls, parsed, strict=True)]
        ties = [one.judgement(judge.name, 0.5) for one in comparisons if one.first.text == one.second.text]
        return found + ties

    def unpaid(self, judge: Asking, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """Return the number of requests of the comparisons, reminders apart, and of those not in the journal."""
        keys = {self._key(judge.body(call.shown)) for call in votes(judge, comparisons)}
        return len(keys), sum(key not in self._journal for key in keys)

    def _replies(
        self, bodies: Sequence[Mapping[str, Any]], watch: Callable[[Iterable[Any], int], Iterable[Any]]
    ) -> list[Reply]:
        """Return a reply for each body; those that are not in the journal are requested, each once."""
        keys = [self._key(body) for body in bodies]
        left = {key: body for key, body in zip(keys, bodies, strict=True) if key not in self._journal}
        asked = in_parallel(lambda item: self._ask(item[1]), left.items(), self._at_once)
        refused: dict[str, Reply] = {}
        for (key, _), reply in watch(asked, len(left)):
            if reply.problem in NOT_AGAIN:  # nothing was paid for, and another time it may fit
                refused[key] = reply
            else:
                self._journal[key] = list(reply)
                self.refusals.answered = True
        self.refusals.check()
        return [refused.get(key) or Reply(*self._journal[key]) for key in keys]

    def _key(self, body: Mapping[str, Any]) -> str:
        return xxhash.xxh3_128_hexdigest(orjson.dumps([self._endpoint.url, body], option=orjson.OPT_SORT_KEYS))

    def _ask(self, body: Mapping[str, Any]) -> Reply:
        try:
            answer = self._endpoint.post("/chat/completions", body)
        except RefusedError as error:
            return Reply("", None, self.refusals.take(error))
        try:
            found = replies.read(answer)
        except ValueError as error:
            if problem := replies.error_of(answer):
                return Reply("", None, problem)
            hint = "expected an OpenAI-compatible chat server"
            raise NetworkError(self._endpoint.url, str(error), hint) from error
        complete = found.choice.get("finish_reason") != "length"
        return Reply(found.text, _first_tokens(found.choice), found.problem, complete)


class ParsedReply(NamedTuple):
    """Verdict of a reply, or why it has none."""

    verdict: Verdict | None
    problem: str


def _parsed(judge: Asking, given: Sequence[Reply], calls: Sequence[JudgeRequest]) -> list[ParsedReply]:
    """Parse replies. Errors: `ModelError` for a server that gives no log-probabilities in any reply."""
    found, lacking = [], []
    for reply, call in zip(given, calls, strict=True):
        verdict, problem = None, ""
        try:
            verdict = judge.verdict(reply, call.shown) if _is_read(reply) else None
        except ModelError as error:
            lacking.append(error)
            problem = NO_LOG_PROBS
        if verdict is None and not problem:
            unread = "cut_off" if not reply.complete else judge.problem(reply, call.shown)
            problem = reply.problem or unread
        found.append(ParsedReply(verdict, problem))
    if lacking and len(lacking) == sum(map(_is_read, given)):
        raise lacking[0]
    return found


def _is_read(reply: Reply) -> bool:
    """Say whether a reply is parsed: one without text can still have log-probabilities."""
    return reply.problem in ("", "cut_off", "empty_reply")


def _first_tokens(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the log-probabilities of the likeliest first tokens; None where the server gives none."""
    try:
        content = (choice.get("logprobs") or {}).get("content")
        return {str(top["token"]): float(top["logprob"]) for top in content[0]["top_logprobs"]} if content else None
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        return None


def votes(judge: Asking, comparisons: Sequence[Comparison]) -> Iterable[JudgeRequest]:
    """Yield the requests for a judge; equal answers need none."""
    for one in comparisons:
        if one.first.text == one.second.text:
            continue
        for swapped in judge.orders(one):
            a, b = (one.second, one.first) if swapped else (one.first, one.second)
            yield JudgeRequest(one, swapped, Shown(one.first.prompt, a.text, b.text))


def reminded(judge: Asking, shown: Shown, reply: Reply) -> dict[str, Any]:
    """Return the request that follows a reply without a verdict."""
    body = judge.body(shown)
    turns = [
        {"role": "assistant", "content": reply.text or "(no answer)"},
        {"role": "user", "content": judge.reminder(shown)},
    ]
    return body | {"messages": [*body["messages"], *turns]}


def _judgement(name: str, call: JudgeRequest, parsed: ParsedReply) -> Judgement:
    verdict = parsed.verdict
    if verdict is None:
        return call.comparison.judgement(name, None, swapped=call.swapped, problem=parsed.problem)
    of_second = 1 - verdict.of_b if call.swapped else verdict.of_b
    return call.comparison.judgement(name, of_second, weight=verdict.weight, swapped=call.swapped)
