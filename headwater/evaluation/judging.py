"""Judgement of models' answers against a baseline's, by LLM judges on a server and by reward models.

    read = read_comparisons(Path("base.json"), [Path("dpo.json")])
    judgements = judge([Reward(model="runs/reward")], read.comparisons)
    figures(judgements, seed=42).of_model("win_rate", "runs/reward", "dpo")

Judgements can be written as AlpacaEval annotations (`judgements.as_annotations`), and compared (`policy_comparison`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headwater.console import say, track
from headwater.data.layouts.description import Description
from headwater.data.reading import RowCounts
from headwater.errors import DataError, NetworkError, UsageError
from headwater.evaluation import arena_hard
from headwater.evaluation.agreement import position_bias
from headwater.evaluation.alpaca_eval import Answer, AnswerFile, read_answers
from headwater.evaluation.judge_client import JudgeClient
from headwater.evaluation.judgements import Judgement, count_comparisons, no_verdict, whole
from headwater.evaluation.judges import Asking, Comparison, Scoring
from headwater.journal import Journal
from headwater.network.endpoint import Endpoint
from headwater.results.comparison import JudgedFigures, of_judge, of_model
from headwater.statistics import Estimate

AT_ONCE = 8
"""Default number of parallel requests."""


class Comparisons(NamedTuple):
    """Answers of one or more models, each beside the baseline's answer to the same prompt."""

    comparisons: list[Comparison]
    row_counts: dict[str, RowCounts]
    """Prompts of either side, by file of answers."""


def read_comparisons(baseline: Path, answers: Sequence[Path], description: Description | None = None) -> Comparisons:
    """Read a baseline's answers and those of other models, a file each, and pair them by prompt.

    `description` is that of `--columns`, for files of another form. Errors: `UsageError` for a description of other
    data; `DataError` for a file that holds no answers, a model that occurs twice, and where no prompt is shared.
    """
    first = _read_answers(baseline, description)
    found: list[Comparison] = []
    row_counts: dict[str, RowCounts] = {}
    for path in answers:
        second = _read_answers(path, description)
        model = second.answers[0].model
        name = f"answers of {model}"
        if name in row_counts or model == first.answers[0].model:
            raise DataError(str(path), f"holds {name}, as another file does", "rename one")
        comparisons, row_counts[name] = _paired(first.answers, second.answers)
        row_counts[name].not_read = sorted({*first.not_read, *second.not_read})
        found += comparisons
    return Comparisons(found, row_counts)


def _read_answers(path: Path, description: Description | None) -> AnswerFile:
    """Read answers, and print how many were cut off: a judge counts that against the model."""
    found = read_answers(path, description=description)
    capped = sum(answer.complete is False for answer in found.answers)
    if capped:
        say(f"{found.answers[0].model}: {capped:,} of {len(found.answers):,} answers were cut off before their end")
    return found


def _paired(baseline: Sequence[Answer], answers: Sequence[Answer]) -> tuple[list[Comparison], RowCounts]:
    """Pair answers with the baseline's, and count the prompts of either side."""
    known = {answer.prompt: answer for answer in baseline}
    found = [Comparison(known[answer.prompt], answer) for answer in answers if answer.prompt in known]
    unknown, unanswered = len(answers) - len(found), len(baseline) - len(found)
    dropped = Counter({"not_in_baseline": unknown, "unanswered": unanswered})
    return found, RowCounts(len(answers) + unanswered, len(found), +dropped)


@dataclass(frozen=True)
class JudgeServer:
    """An OpenAI-compatible chat server, and the journal that holds every reply before it is used."""

    url: str
    journal: Path
    at_once: int = AT_ONCE
    """Number of parallel requests."""
    refused: dict[str, str] = field(default_factory=dict)
    """Messages of the server about requests that it refused, by problem."""

    @contextlib.contextmanager
    def client(self) -> Iterator[JudgeClient]:
        """Open the journal and return a client; refusals are collected when it closes."""
        with Journal(self.journal, {}) as journal:
            client = JudgeClient(Endpoint(self.url), journal, self.at_once)
            try:
                yield client
            finally:
                self.refused.update(client.refusals.said)


def judge(
    judges: Sequence[Asking | Scoring], comparisons: Sequence[Comparison], server: JudgeServer | None = None
) -> list[Judgement]:
    """Return the judgements of all judges; LLM judges need a `server`.

    Errors: `UsageError` for an LLM judge without a server, `NetworkError`, and where no comparison has a verdict
    `NetworkError` or, without a server, `DataError`.
    """
    found = [one for each in judges for one in _judged(each, comparisons, server)]
    if not whole(found):
        problem = no_verdict(count_comparisons(found).dropped)
        if server is not None:
            message = next(iter(server.refused.values()), "")
            raise NetworkError(server.url, problem, message, "see what the server answers, or name another judge")
        raise DataError("--answers", problem, "give --judge a larger max_length, or other answers")
    return found


def _judged(judge: Asking | Scoring, comparisons: Sequence[Comparison], server: JudgeServer | None) -> list[Judgement]:
    if not isinstance(judge, Asking):
        return judge.judge(comparisons)
    if server is None:
        raise UsageError(f"--judge {judge.name}", "needs a server", "add --endpoint http://…/v1")
    with server.client() as client:
        every, left = client.unpaid(judge, comparisons)
        say(f"{judge.name}: {every:,} requests, {every - left:,} of them in {server.journal}")
        return client.judge(judge, comparisons, lambda items, total: track(items, f"asking {judge.name}", total))


class Requests(NamedTuple):
    """Number of requests that an LLM judge takes, reminders apart."""

    judge: str
    every: int
    left: int
    """Those that are not in the journal."""


def plan(judges: Sequence[Asking | Scoring], comparisons: Sequence[Comparison], server: JudgeServer) -> list[Requests]:
    """Return the number of requests that each LLM judge takes, without making any."""
    with server.client() as client:
        asking = [judge for judge in judges if isinstance(judge, Asking)]
        return [Requests(judge.name, *client.unpaid(judge, comparisons)) for judge in asking]


def by_judge(judgements: Sequence[Judgement]) -> Mapping[str, list[Judgement]]:
    """Return the judgements of every judge."""
    found: dict[str, list[Judgement]] = {}
    for one in judgements:
        found.setdefault(one.judge, []).append(one)
    return found


def figures(judgements: Sequence[Judgement], seed: int) -> JudgedFigures:
    """Return the win rate of every model under every judge, and every judge's preference for the first position."""
    found: dict[str, Estimate] = {}
    for name, own in by_judge(judgements).items():
        usable = whole(own)
        for model in dict.fromkeys(one.second for one in own):
            votes = [one for one in usable if one.second == model]
            if votes:
                found[of_model("win_rate", name, model)] = arena_hard.score(votes, seed)
        bias = position_bias(usable, seed)
        if bias is not None:
            found[of_judge("prefers_first", name)] = bias
    return JudgedFigures(found)
