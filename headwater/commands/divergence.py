"""Measure KL(policy ‖ reference) at every position of a response, in nats.

Along the responses of the data, or along the policy's own samples (summed, an unbiased estimate of the KL between the
two). The mean log-ratio of the tokens of chosen and rejected responses is positive where the policy has moved towards
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import DataFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preparation import PrepLog
from headwater.data.templates import renders_conversations
from headwater.data.tokens import EncodeOptions
from headwater.data.truncation import Truncation
from headwater.errors import ModelError
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.recording import recording
from headwater.signals.options import DivergenceOptions
from headwater.signals.tables import divergence_tables

EXAMPLE = "headwater divergence runs/dpo pairs.jsonl"

HELP = {
    "Input": ("model", "dataset", "reference", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Measurement": ("along", "max_new_tokens", "max_length", "tokens_per_pass", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags, RunFlags):
    """Flags of `headwater divergence`."""

    model: Annotated[str, POSITIONAL]
    """Policy: a training run, path or Hugging Face name."""
    dataset: Annotated[Path, POSITIONAL]
    """Preference pairs, whose prompts and responses are scored: a file, directory, pattern, run, or name on the hub."""
    output: Path | None = None
    """Directory of the run. Default: ./MODEL-divergence-on-DATASET."""
    reference: str | None = None
    """Model to compare the policy with. Default: the reference that its training run names."""
    options: DivergenceOptions = field(default_factory=DivergenceOptions)
    seed: int = 42
    """Random seed of samples, draws and bootstrap intervals."""


@renders_conversations
def run(config: Config) -> Path:
    """Measure the divergence, print it and return the run directory."""
    from headwater.signals import passes
    from headwater.signals.divergence import SAMPLE_TOKENS, distinct_prompts, measure_divergence

    options = config.options
    output = config.output or Path(f"{Path(config.model).name}-divergence-on-{reading.name_of(config.dataset)}")
    runs.check_free(output, config.overwrite, config)
    if passes.head_of(config.model) == "reward":
        raise ModelError(config.model, "is a reward model", "name a policy")
    loaded = reading.load(config.dataset, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    encode_options = EncodeOptions(Truncation(), "complete", options.max_length)
    two = passes.load_two_policies(
        config.model, config.reference, loaded.preferences, encode_options, config.seed, prep_log
    )
    pairs = two.pairs
    if options.along == "samples":
        pairs, prep_log.stages["prompts"] = distinct_prompts(two, options.max_new_tokens or SAMPLE_TOKENS)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    facts: Facts = {"along": options.along}
    with recording(output, "divergence", config, read=loaded, stages=prep_log.stages, facts=facts) as writer:
        found = measure_divergence(two, pairs, options, config.seed)
        found.divergence.write(writer.path)
        writer.write_metrics(found.metrics)
        for part in divergence_tables(found, options.along):
            show(part)
    return output
