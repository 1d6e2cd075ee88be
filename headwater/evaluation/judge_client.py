"""LLM judges are asked through a chat server: in parallel, every reply on disk before it is used.

A request that has no answer (too long for the model, refused, empty, without a verdict) costs its comparison the
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
"""Problems that a reminder does not mend. But for the last they are those of requests that cost nothing."""


class JudgeRequest(NamedTuple):
    """One look of an LLM judge at a comparison."""

    comparison: Comparison
    swapped: bool
    shown: Shown


class JudgeClient:
    """Where LLM judges are asked: every reply is on disk, by the content of its request, before it is used."""

    def __init__(self, endpoint: Endpoint, journal: Journal, at_once: int) -> None:
        self._endpoint, self._journal, self._at_once = endpoint, journal, at_once
        self.refusals = Refusals(answered=len(journal) > 0)

    def judge(
        self,
        judge: Asking,
        comparisons: Sequence[Comparison],
        watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
    ) -> list[Judgement]:
        """Return the judgements of all looks; equal answers tie unseen.

        A reply without a verdict is answered once with a reminder; then `preference` stays None, with the `problem`. So
        it is with a request that the server refuses while it answers others. `watch` sees the requests that are made.
        Errors: `NetworkError`; what was answered before is in the ledger.
        """
        calls = list(votes(judge, comparisons))
        first = self._replies([judge.body(call.shown) for call in calls], watch)
        heard = _heard(judge, first, calls)
        again = [place for place, one in enumerate(heard) if one.verdict is None and one.problem not in NOT_AGAIN]
        bodies = [reminded(judge, calls[place].shown, first[place]) for place in again]
        second = _heard(judge, self._replies(bodies, watch), [calls[place] for place in again])
        for place, one in zip(again, second, strict=True):
            if one.problem not in NOT_AGAIN:  # a reminder may not fit where the request did
                heard[place] = one
        said = [_judgement(judge.name, call, one) for call, one in zip(calls, heard, strict=True)]
        ties = [one.judgement(judge.name, 0.5) for one in comparisons if one.first.text == one.second.text]
        return said + ties

    def unpaid(self, judge: Asking, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """Return how many requests the comparisons take, reminders apart, and how many are not in the ledger."""
        keys = {self._key(judge.body(call.shown)) for call in votes(judge, comparisons)}
        return len(keys), sum(key not in self._journal for key in keys)

    def _replies(
        self, bodies: Sequence[Mapping[str, Any]], watch: Callable[[Iterable[Any], int], Iterable[Any]]
    ) -> list[Reply]:
        """Return a reply a body, asking for those that are not in the ledger, each once."""
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


class Heard(NamedTuple):
    """What a reply says: a verdict, or why there is none."""

    verdict: Verdict | None
    problem: str


def _heard(judge: Asking, given: Sequence[Reply], calls: Sequence[JudgeRequest]) -> list[Heard]:
    """Read replies. Errors: `ModelError` for a server that never says what is needed."""
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
        found.append(Heard(verdict, problem))
    if lacking and len(lacking) == sum(map(_is_read, given)):
        raise lacking[0]
    return found


def _is_read(reply: Reply) -> bool:
    """Say whether a judge looks at a reply: one without a text can still have log-probabilities."""
    return reply.problem in ("", "cut_off", "empty_reply")


def _first_tokens(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the likeliest first tokens; None where the server does not say them."""
    try:
        content = (choice.get("logprobs") or {}).get("content")
        return {str(top["token"]): float(top["logprob"]) for top in content[0]["top_logprobs"]} if content else None
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        return None


def votes(judge: Asking, comparisons: Sequence[Comparison]) -> Iterable[JudgeRequest]:
    """Yield what a judge is asked: answers that are equal to the letter need no judge."""
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


def _judgement(name: str, call: JudgeRequest, heard: Heard) -> Judgement:
    verdict = heard.verdict
    if verdict is None:
        return call.comparison.judgement(name, None, swapped=call.swapped, problem=heard.problem)
    of_second = 1 - verdict.of_b if call.swapped else verdict.of_b
    return call.comparison.judgement(name, of_second, weight=verdict.weight, swapped=call.swapped)
