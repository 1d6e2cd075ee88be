"""Answers of several models to the same prompts, side by side, with the rewards that judges gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from headwater.reporting.findings import distinct, number
from headwater.reporting.plots.policies import short
from headwater.results import runs as stored
from headwater.results.answers import StoredAnswer, answers_of
from headwater.results.comparison import ComparedPrompts
from headwater.results.runs import Run

MOST = 12
"""Most prompts that are shown unfolded."""
ROOM = 60
"""Most prompts of a run in all; of more, evenly spaced ones are taken."""

Rewards = Mapping[tuple[str, str, str], float]
"""Rewards by judge, model and prompt."""


class ShownAnswer(NamedTuple):
    """One answer."""

    model: str
    text: str
    under: str
    """Its rewards, its length, and whether it is unfinished."""


class AnsweredPrompt(NamedTuple):
    """A prompt with the answers of all models."""

    prompt: str
    answers: tuple[ShownAnswer, ...]


class SideBySide(NamedTuple):
    """The answers of a run of `generate`."""

    title: str
    says: str
    rows: tuple[AnsweredPrompt, ...]

    @property
    def shown(self) -> tuple[AnsweredPrompt, ...]:
        """The rows that are not folded."""
        return self.rows[:MOST]

    @property
    def folded(self) -> tuple[AnsweredPrompt, ...]:
        """The other rows."""
        return self.rows[MOST:]


def beside(runs: Sequence[Run]) -> list[SideBySide]:
    """Return the answers of every `generate` run of at least two models, in the order in which these were named."""
    runs = distinct(runs)
    rewards = _rewards(runs)
    return [found for run in runs if run.command == "generate" and (found := _of(run, rewards))]


def _of(run: Run, rewards: Rewards) -> SideBySide | None:
    answers = answers_of(run.path)
    models = [model for model in _in_order(run, answers) if answers[model]]
    by_prompt = [{answer.prompt: answer for answer in answers[model]} for model in models]
    shared = [prompt for prompt in (by_prompt[0] if models else ()) if all(prompt in each for each in by_prompt)]
    if len(models) < 2 or not shared:
        return None
    taken = shared[:: -(-len(shared) // ROOM)]
    rows = tuple(
        AnsweredPrompt(
            prompt,
            tuple(_shown(model, each[prompt], rewards) for model, each in zip(models, by_prompt, strict=True)),
        )
        for prompt in taken
    )
    trained = _descends(run, models)
    every = f"{len(shared)} prompts" if len(taken) == len(shared) else f"{len(taken)} of {len(shared)} prompts"
    says = f"{every}, in the order of the data, answered with the same settings by {_listed(models)}."
    known = list(dict.fromkeys(judge for judge, _, _ in rewards))
    if known:
        says += f" Rewards are those of {_listed([short(judge) for judge in known])}, each in units of its own."
    return SideBySide("Answers before and after" if trained else "Answers side by side", says, rows)


def _in_order(run: Run, answers: Mapping[str, object]) -> list[str]:
    """Return the models with answers in the order of the command's --model."""
    named = [str(name) for name in run.config.get("model", ())]
    places = {Path(name).name: place for place, name in enumerate(named)} | {
        name: place for place, name in enumerate(named)
    }
    return sorted(answers, key=lambda model: places.get(model, len(places)))


def _descends(run: Run, models: Sequence[str]) -> bool:
    """Say whether every model but the first was trained from the first."""
    first, *others = run.config.get("model", ())
    return len(others) == len(models) - 1 and all(stored.facts_of(Path(name)).get("base") == first for name in others)


def _rewards(runs: Sequence[Run]) -> Rewards:
    found: dict[tuple[str, str, str], float] = {}
    for run in runs:
        compared = ComparedPrompts.find(run.path) if run.command == "compare" else None
        for row in compared.records if compared else ():
            for model, score in ((row.model, row.model_score), (row.baseline, row.baseline_score)):
                if score is not None:
                    found[row.judge, model, row.prompt] = score
    return found


def _shown(model: str, answer: StoredAnswer, rewards: Rewards) -> ShownAnswer:
    given = [
        f"{number(score, 2)} by {short(judge)}"
        for (judge, of, prompt), score in rewards.items()
        if of == model and prompt == answer.prompt
    ]
    parts = [f"reward {', '.join(given)}"] if given else []
    parts += [f"{answer.tokens} tokens"] if answer.tokens is not None else []
    parts += ["cut off at the limit"] if answer.complete is False else []
    return ShownAnswer(model, answer.text, " · ".join(parts))


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
