"""Answers of models to evaluation prompts, drawn so that a stopped command continues, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from headwater import statistics
from headwater.data.sampling import Asked, Journal, Sampling
from headwater.errors import DataError, NetworkError
from headwater.evaluation.alpaca_eval import Answer, answer_to
from headwater.models import fingerprint
from headwater.network.endpoint import Refusals
from headwater.rewards.drawing import SamplerOptions, draw_missing
from headwater.statistics import LEVEL, Estimate


def answer_prompts(
    model: str,
    name: str,
    prompts: Sequence[Asked],
    sampling: Sampling,
    options: SamplerOptions,
    seed: int,
    journal: Journal,
    refusals: Refusals,
) -> list[Answer]:
    """Return the answers of a model, called `name`, in the order of the prompts.

    Prompts without space for an answer are left out, and requests that a server refuses are counted in `refusals`.
    Errors: `DataError` where no prompt leaves room for an answer, `NetworkError` where the server answers none.
    """
    endpoint = options.endpoint
    # A folder may be trained anew between two commands: its answers are found again by the content of its files.
    content = "" if endpoint else f" {fingerprint.of_model_files(model)}"

    def key(one: Asked) -> str:
        return f"{model}{content} {one.key}"

    what = f"answers of {name}"
    drawn = draw_missing(model, prompts, sampling, options, seed, journal, refusals, key=key, what=(what, what))
    if not drawn and endpoint:
        raise NetworkError(endpoint, f"{model} answered no prompt: {refusals.summary()}")
    if not drawn:
        raise DataError(model, "no prompt leaves room for an answer", "lower --max-new-tokens")
    found = []
    for one in drawn:
        (response,) = journal.drawn(key(one))
        found.append(answer_to(one.prompt, response.text, name, one.source, response.complete, response.tokens))
    return found


def length_metrics(answers: Mapping[str, Sequence[Answer]], seed: int) -> dict[str, Estimate]:
    """Return mean characters, mean tokens (where known) and the share of answers cut off, as FIGURE/MODEL."""
    metrics: dict[str, Estimate] = {}
    for name, found in answers.items():
        clusters = [one.prompt for one in found]
        own = {"characters": statistics.mean([len(one.text) for one in found], clusters, seed)}
        if None not in (lengths := [one.tokens for one in found]):
            own["tokens"] = statistics.mean([length or 0 for length in lengths], clusters, seed)
        own["capped"] = statistics.mean([one.complete is False for one in found], clusters, seed)
        metrics |= {f"{kind}/{name}": estimate for kind, estimate in own.items()}
    return metrics


def length_table(answers: Mapping[str, Sequence[Answer]], metrics: Mapping[str, Estimate]) -> Table:
    """Return the lengths of the answers, a row a model."""
    level = f"{LEVEL:.0%} interval"
    table = Table("model", "characters", level, "tokens", level, "cut off", "n", title="answers", title_justify="left")
    for name, found in answers.items():
        lengths = [metrics.get(f"{kind}/{name}") for kind in ("characters", "tokens")]
        cells = [cell for one in lengths for cell in ((f"{one.value:.1f}", one.interval()) if one else ("–", "–"))]
        table.add_row(name, *cells, f"{metrics[f'capped/{name}'].value:.1%}", str(len(found)))
    return table
