"""Answer evaluation prompts with one or more models, a file a model in AlpacaEval's format, for `headwater judge`.

Every answer is stored in OUTPUT.ledger before the next is begun: a command that was stopped continues when it is
repeated, also with more models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from headwater import files, statistics
from headwater.commands._flags import RunFlags, TemplateFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show, track
from headwater.data.reading import RowCounts
from headwater.data.sampling import Asked, Drawn, Journal, Sampling, ask_many
from headwater.data.templates import renders_conversations
from headwater.errors import DataError, NetworkError, UsageError
from headwater.network.endpoint import Endpoint, Refusals
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.evaluation.alpaca_eval import Answer

EXAMPLE = "headwater generate --prompts alpaca_eval.json --model runs/sft runs/dpo --output runs/answers"
AT_ONCE = 8

HELP = {
    "Input": ("prompts", "model"),
    "Output": ("output", "overwrite"),
    "Generation": ("temperature", "top_p", "max_new_tokens", "seed"),
    "Computation": ("endpoint", "concurrency", "batch_size"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True, kw_only=True)
class Config(TemplateFlags, RunFlags):
    """Flags of `headwater generate`."""

    prompts: Annotated[Path, POSITIONAL]
    """Prompts of AlpacaEval or Arena-Hard, recorded answers to them, or data of any kind for its prompts."""
    model: tuple[str, ...]
    """Policies that answer: training runs, paths or Hugging Face names; with --endpoint, the server's names for
    them."""
    output: Path
    """Directory of the run; a model's answers are in a file of its name, such as dpo.json for runs/dpo."""
    endpoint: str | None = None
    """OpenAI-compatible server to ask instead of a local model, such as http://localhost:8000/v1; its key is read
    from OPENAI_API_KEY."""
    temperature: float = 0.0
    """Divides the logits; 0 selects the most likely token."""
    top_p: float = 1.0
    """Draw from the most likely tokens that together have this probability."""
    max_new_tokens: int = 1024
    """Maximum number of tokens; an answer that reaches it is marked as incomplete."""
    batch_size: int | None = None
    """Number of prompts a local model answers at a time. Does not change results. Default: 8."""
    concurrency: int | None = None
    """Number of prompts sent to a server at a time. Default: 8."""
    seed: int = 42
    """Random seed of the answers and of the bootstrap intervals."""


@renders_conversations
def run(config: Config) -> Path:
    """Let every model answer, print how long the answers are and return the run directory."""
    from headwater.evaluation import alpaca_eval, prompts

    sampling, names = _checked(config)
    asked, stages = prompts.read(config.prompts)
    if not asked:
        raise DataError(str(config.prompts), "holds no prompts")
    say_stages(stages)
    settings = {name: getattr(config, name) for name in ("endpoint", "chat_template", "seed")} | asdict(sampling)
    journal = Journal(config.output.with_name(config.output.name + ".ledger"), settings)
    try:
        refusals = {name: Refusals(answered=len(journal) > 0) for name in names.values()}
        answers = {
            name: _answers(config, sampling, model, name, asked, journal, refusals[name])
            for model, name in names.items()
        }
    except BaseException:
        journal.close()
        raise
    for name, found in answers.items():
        dropped = +(refusals[name].counts or Counter({"too_long": len(asked) - len(found)}))
        stages[f"answers of {name}"] = RowCounts(len(asked), len(found), dropped)
    writer = runs.start(config.output, "generate", config, inputs=[config.prompts] if config.prompts.is_file() else [])
    for name, found in answers.items():
        files.write_json(writer.path / _file(name), alpaca_eval.as_rows(found))
    writer.count_stages(stages)
    writer.write_metrics(_show(answers, config.seed))
    say_stages({stage: row_counts for stage, row_counts in stages.items() if stage.startswith("answers")})
    say("written: " + ", ".join(str(writer.path / _file(name)) for name in answers))
    writer.finish()
    journal.discard()
    return writer.path


def _checked(config: Config) -> tuple[Sampling, dict[str, str]]:
    """Return the sampling options, and the name of the answers' author by model. Errors: `UsageError`."""
    sampling = Sampling(1, config.temperature, config.top_p, config.max_new_tokens)
    for flag, value, hint in (
        ("--concurrency", None if config.endpoint else config.concurrency, "on a local model, see --batch-size"),
        ("--batch-size", config.batch_size if config.endpoint else None, "on a server, see --concurrency"),
        ("--chat-template", config.chat_template if config.endpoint else None, "on a server, which has its own"),
    ):
        if value is not None:
            raise UsageError(flag, f"has no effect {hint}", "leave it out")
    for flag, value in (("--concurrency", config.concurrency), ("--batch-size", config.batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} {value}", "expected 1 or more")
    if config.endpoint:
        Endpoint(config.endpoint)
    names = {model: Path(model).name for model in config.model}
    if not names or len(names) < len(config.model):
        raise UsageError("--model", "names a model twice" if names else "names nothing", "name each one once")
    if len(set(names.values())) < len(names):
        names = {model: model for model in names}  # runs/a/final and runs/b/final
    runs.check_free(config.output, config.overwrite, config)
    return sampling, names


def _file(name: str) -> str:
    return name.strip("/").replace("/", "-") + ".json"


def _answers(
    config: Config,
    sampling: Sampling,
    model: str,
    name: str,
    prompts: Sequence[Asked],
    journal: Journal,
    refusals: Refusals,
) -> list[Answer]:
    """Return a model's answers in the order of the prompts, without prompts that are too long.

    `refusals` counts the requests that a server refuses. Errors: `DataError` where all prompts are too long,
    `NetworkError` where the server answers none.
    """
    from headwater.evaluation.alpaca_eval import answer_to

    content = "" if config.endpoint else f" {_fingerprint(model)}"  # a folder may be trained anew meanwhile

    def key(one: Asked) -> str:
        return f"{model}{content} {one.key}"

    left = [one for one in prompts if key(one) not in journal]
    if len(left) < len(prompts):
        say(f"resumed: {len(prompts) - len(left):,} of {len(prompts):,} answers of {name} are in {journal.path}")
    for one, draws in track(_drawn(config, sampling, model, left, refusals), f"answers of {name}", len(left)):
        journal.add(key(one), draws)
    found = []
    for one in prompts:
        if key(one) in journal:
            (drawn,) = journal.drawn(key(one))
            found.append(answer_to(one.prompt, drawn.text, name, one.source, drawn.complete, drawn.tokens))
    if not found and config.endpoint:
        raise NetworkError(config.endpoint, f"{model} answered no prompt: {refusals.summary()}")
    if not found:
        raise DataError(model, "no prompt leaves room for an answer", "lower --max-new-tokens")
    return found


def _fingerprint(model: str) -> str:
    from headwater.models import fingerprint

    return fingerprint.of_model_files(model)


def _drawn(
    config: Config, sampling: Sampling, model: str, prompts: Sequence[Asked], refusals: Refusals
) -> Iterable[tuple[Asked, list[Drawn]]]:
    if not prompts:
        return []
    if config.endpoint:
        at_once = config.concurrency or AT_ONCE
        return ask_many(Endpoint(config.endpoint), model, prompts, sampling, config.seed, at_once, refusals)
    from headwater.rewards.sampling import draw_from

    return draw_from(model, prompts, sampling, config.seed, config.batch_size or AT_ONCE)


def _show(answers: dict[str, list[Answer]], seed: int) -> dict[str, Estimate]:
    """Print and return the lengths of each model's answers, and how many were cut off."""
    metrics: dict[str, Estimate] = {}
    level = f"{LEVEL:.0%} interval"
    table = Table("model", "characters", level, "tokens", level, "cut off", "n", title="answers", title_justify="left")
    for name, found in answers.items():
        clusters = [one.prompt for one in found]
        own = {"characters": statistics.mean([len(one.text) for one in found], clusters, seed)}
        if None not in (lengths := [one.tokens for one in found]):
            own["tokens"] = statistics.mean([length or 0 for length in lengths], clusters, seed)
        own["capped"] = statistics.mean([one.complete is False for one in found], clusters, seed)
        cells = [
            (f"{own[kind].value:.1f}", own[kind].interval()) if kind in own else ("–", "–")
            for kind in ("characters", "tokens")
        ]
        table.add_row(name, *cells[0], *cells[1], f"{own['capped'].value:.1%}", str(len(found)))
        metrics |= {f"{kind}/{name}": estimate for kind, estimate in own.items()}
    show(table)
    return metrics
