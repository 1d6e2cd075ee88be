"""Show preference pairs token by token, in one self-contained page: where each response gains and loses.

With a reward model, or a policy and its reference, every token is coloured by what it adds to the score, and a cut that
can be dragged shows what would be kept and the score there; --against adds the scores of a second model. Without a
model, the page shows texts, lengths, common prefixes and the cut. For a run of `decode` it shows the KL of every token,
and which model it came from. With --serve the page is live: type a prompt and two answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import DataFlags, RunFlags, refuse_given
from headwater.config import POSITIONAL
from headwater.console import say
from headwater.data import reading
from headwater.data.preparation import PrepLog
from headwater.data.templates import renders_conversations
from headwater.errors import UsageError
from headwater.reporting.lens.page import write_lens
from headwater.results import runs
from headwater.results.decoding import DecodedResponses
from headwater.results.facts import Facts
from headwater.results.recording import recording
from headwater.signals.lens import LensOptions, build_lens, decoded_lens, empty_lens, serve
from headwater.signals.options import ScorerOptions

EXAMPLE = """headwater lens runs/reward pairs.jsonl --output runs/lens
  headwater lens --model runs/reward --serve"""
MODEL_FLAGS = ("reference", "beta", "reward_head", "tokens_per_pass", "against", "allow_leakage", "serve")
DATA_FLAGS = ("pairs", "allow_leakage", "read_options")
"""Flags without effect where no file is read."""
PAIR_FLAGS = ("model", "tokenizer", "end", "max_length", "cut", "read_options", *MODEL_FLAGS)
"""Flags without effect on decoded responses."""

HELP = {
    "Input": ("model", "data", "split", "limit"),
    "Output": ("output", "overwrite", "serve"),
    "Models": ("against", "reference", "tokenizer"),
    "Page": ("pairs", "keep", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags, RunFlags):
    """Flags of `headwater lens`."""

    model: Annotated[str | None, POSITIONAL] = None
    """Reward model, or policy with its reference, that scores every token. Default: none."""
    data: Annotated[Path | None, POSITIONAL] = None
    """Preference pairs, or a run of decode: a file, directory, pattern, run, or name on the hub. Can be left out
    with --serve."""
    output: Path | None = None
    """Directory of the run, which holds lens.html. Default: ./DATA-lens, or ./DATA-lens-by-MODEL."""
    scorer: ScorerOptions = field(default_factory=ScorerOptions)
    serve: bool = False
    """Serve the page to this machine only, with a form to type prompts and responses; nothing is written."""
    port: int | None = None
    """Port of --serve. Default: a free one."""
    options: LensOptions = field(default_factory=LensOptions)
    seed: int = 42
    """Random seed of the pairs shown and of the bootstrap intervals."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.model is None:
            refuse_given(self, MODEL_FLAGS, "is about a model", "name one with --model")
        if self.serve:
            refuse_given(self, ("output", "overwrite"), "has no effect, as nothing is written", "leave it out")
        else:
            refuse_given(self, ("port",), "is about --serve", "add --serve")
        if self.data is None:
            if not self.serve:
                raise UsageError("lens", "no data is named", "such as pairs.jsonl; or type pairs with --serve")
            refuse_given(self, DATA_FLAGS, "is about data", "name a preference file")
        if self.model is not None and self.options.tokenizer is not None:
            raise UsageError("--tokenizer", "a model has its own", "leave it out")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}", "expected 1 to 65535")


@renders_conversations
def run(config: Config) -> Path | None:
    """Write the page of the pairs, print its notes and return the run directory; or serve the page."""
    from headwater.evaluation.comparison import summarise_rewards

    if config.data is None:
        assert config.model is not None, "refused before"
        serve(empty_lens(config.model, config.options, config.scorer, config.seed), config.port)
        return None
    name = f"{reading.name_of(config.data)}-lens"
    output = config.output or Path(f"{name}-by-{Path(config.model).name}" if config.model else name)
    if runs.command_of(config.data) == "decode" and not config.serve:
        return _run_decoded(config, runs.load(config.data), output)
    if config.options.against:
        config.read_options.check_last_turns("tokens of two models are compared in one turn a response")
    if not config.serve:
        runs.check_free(output, config.overwrite, config)
    loaded = reading.load(config.data, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    found = build_lens(
        loaded.preferences,
        str(config.data),
        config.model,
        options=config.options,
        scorer=config.scorer,
        seed=config.seed,
        prep_log=prep_log,
        summarise=lambda *scored: summarise_rewards(*scored).known(),
    )
    if config.serve:
        serve(found, config.port)
        return None
    with recording(output, "lens", config, read=loaded, stages=prep_log.stages, facts=found.facts) as writer:
        writer.write_metrics(found.metrics)
        writer.write_records(found.records())
        write_lens(writer.path, found.lens)
    return output


def _run_decoded(config: Config, source: runs.Run, output: Path) -> Path:
    """Write the page of a run of `decode`."""
    refuse_given(config, PAIR_FLAGS, "has no effect on responses that were decoded before", "leave it out")
    runs.check_free(output, config.overwrite, config)
    prep_log = PrepLog()
    shown = decoded_lens(source, config.options, config.seed, prep_log)
    facts: Facts = {"decoded_from": source.facts["decoded_from"], "strategy": source.facts["strategy"]}
    inputs = [source.path / DecodedResponses.FILE]
    with recording(output, "lens", config, stages=prep_log.stages, inputs=inputs, facts=facts) as writer:
        writer.write_metrics({})
        write_lens(writer.path, shown)
    return output
