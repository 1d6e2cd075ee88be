"""Answer evaluation prompts with one or more models, a file a model in AlpacaEval's format, for `headwater judge`.

Every answer is stored in OUTPUT.ledger before the next is begun: a command that was stopped continues when it is
repeated, also with more models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headwater import files
from headwater.commands._flags import DataFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say_stages, show
from headwater.data.reading import RowCounts
from headwater.data.sampling import Journal, Sampling
from headwater.data.templates import renders_conversations
from headwater.errors import UsageError
from headwater.network.endpoint import Refusals
from headwater.results import runs
from headwater.results.outputs import journal_of
from headwater.results.recording import recording
from headwater.rewards.drawing import SamplerOptions

if TYPE_CHECKING:
    pass

EXAMPLE = "headwater generate alpaca_eval.json --model runs/sft runs/dpo --output runs/answers"

HELP = {
    "Input": ("prompts", "model", "columns", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Generation": ("temperature", "top_p", "max_new_tokens", "seed"),
    "Computation": ("endpoint", "concurrency", "batch_size"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags, RunFlags):
    """Flags of `headwater generate`."""

    prompts: Annotated[Path, POSITIONAL]
    """Prompts of AlpacaEval or Arena-Hard, recorded answers to them, or data of any kind for its prompts."""
    model: tuple[str, ...]
    """Policies that answer: training runs, paths or Hugging Face names; with --endpoint, the server's names for
    them."""
    output: Path
    """Directory of the run; a model's answers are in a file of its name, such as dpo.json for runs/dpo."""
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    temperature: float = 0.0
    """Divides the logits; 0 selects the most likely token."""
    top_p: float = 1.0
    """Draw from the most likely tokens that together have this probability."""
    max_new_tokens: int = 1024
    """Maximum number of tokens; an answer that reaches it is marked as incomplete."""
    seed: int = 42
    """Random seed of the answers and of the bootstrap intervals."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work or have no effect. Errors: `UsageError`."""
        self.sampler.check(self.chat_template)
        if not self.model or len(set(self.model)) < len(self.model):
            problem = "names a model twice" if self.model else "names nothing"
            raise UsageError("--model", problem, "name each one once")

    @property
    def names(self) -> dict[str, str]:
        """The name under which the answers of every model are stored."""
        names = {model: Path(model).name for model in self.model}
        if len(set(names.values())) < len(names):
            return {model: model for model in names}  # runs/a/final and runs/b/final
        return names


@renders_conversations
def run(config: Config) -> Path:
    """Let every model answer, print how long the answers are and return the run directory."""
    from headwater.evaluation import alpaca_eval, prompts
    from headwater.evaluation.answering import answer_prompts, length_metrics, length_table

    sampling = Sampling(1, config.temperature, config.top_p, config.max_new_tokens)
    runs.check_free(config.output, config.overwrite, config)
    asked, stages, row_reader = prompts.read(config.prompts, config.read_options)
    say_stages(stages)
    settings = {"endpoint": config.sampler.endpoint, "chat_template": config.chat_template, "seed": config.seed}
    journal = Journal(journal_of(config.output), settings | asdict(sampling))
    try:
        refusals = {name: Refusals(answered=len(journal) > 0) for name in config.names.values()}
        answers = {
            name: answer_prompts(model, name, asked, sampling, config.sampler, config.seed, journal, refusals[name])
            for model, name in config.names.items()
        }
    except BaseException:
        journal.close()
        raise
    for name, found in answers.items():
        dropped = +(refusals[name].counts or Counter({"too_long": len(asked) - len(found)}))
        stages[f"answers of {name}"] = RowCounts(len(asked), len(found), dropped)
    with recording(config.output, "generate", config, read=row_reader, stages=stages) as writer:
        written = {name: writer.path / (name.strip("/").replace("/", "-") + ".json") for name in answers}
        for name, found in answers.items():
            files.write_json(written[name], alpaca_eval.as_rows(found))
        metrics = length_metrics(answers, config.seed)
        writer.write_metrics(metrics)
        show(length_table(answers, metrics))
    say_stages({stage: row_counts for stage, row_counts in stages.items() if stage.startswith("answers")})
    journal.discard()
    return config.output
