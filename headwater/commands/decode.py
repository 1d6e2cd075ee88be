"""Let a policy and its reference answer prompts together, and say what every token cost in KL.

A strategy says who speaks: length_control(first=20), kl_threshold(threshold=0.5), interpolate(weight=0.5), or one
model alone: policy, reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text

from headwater import files, runs, statistics
from headwater.config import build
from headwater.console import say_stages, show, visible
from headwater.data import reading
from headwater.data.preference import Candidates
from headwater.data.reading import Account, Door
from headwater.data.sampling import Drawn, asked
from headwater.decoding.options import DecodingOptions
from headwater.errors import DataError, UsageError
from headwater.statistics import LEVEL, Estimate

EXAMPLE = (
    'headwater decode --model runs/dpo --input pairs.jsonl --output runs/decoded --strategy "length_control(first=20)"'
)
SHOWN = 3


@dataclass(frozen=True)
class Config:
    """Flags of `headwater decode`."""

    model: Annotated[str, tyro.conf.arg(aliases=["--model-name-or-path"])]
    """Policy: a training run, path or Hugging Face name."""
    input: Annotated[Path, tyro.conf.arg(aliases=["--data", "--dataset"])]
    """Data of any kind, for its prompts, each once."""
    output: Annotated[Path, tyro.conf.arg(aliases=["--output-dir"])]
    """Directory of the run; with --n 2 or more it is also a data set, for `headwater select`, `score`, …"""
    strategy: str = "length_control(first=20)"
    """Who speaks: length_control(first=…), kl_threshold(threshold=…, below=…), interpolate(weight=…), policy,
    reference."""
    reference: str | None = None
    """Reference model. Default: the one that the policy's training run names."""
    decoding: Annotated[DecodingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=DecodingOptions)
    reward_model: tuple[str, ...] = ()
    """Score every response with these reward models; the first one's rewards are the data's scores."""
    draws: int = 0
    """Draws a token of the Monte-Carlo estimate of KL(policy ‖ reference); 0 for none, 1000 in the paper."""
    seed: int = 42
    """Makes the draws; and seeds the bootstrap."""
    overwrite: bool = False
    """Replace an earlier run at --output."""
    door: Annotated[Door, tyro.conf.OmitArgPrefixes] = field(default_factory=Door)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.draws < 0:
            raise UsageError(f"--draws {self.draws}", "expected 0 or more")


def run(config: Config) -> Path:
    """Decode, print the figures and return the run directory."""
    from headwater.decoding.session import Judges, Session, load_pair
    from headwater.decoding.strategies import STRATEGIES

    strategy = build(config.strategy, STRATEGIES, "strategy")
    runs.check_free(config.output, config.overwrite)
    intake = reading.stream(config.input, config.door)
    prompts, account = asked(intake)
    if not prompts:
        raise DataError(intake.place, f"no usable rows among {intake.account.rows_in}", intake.quarantine.first)
    session = Session(load_pair(config.model, config.reference, config.seed), prompts, config.decoding)
    dropped = +Counter({"too_long": session.too_long})
    stages = {
        "read": intake.account,
        "prompts": account,
        "decode": Account(len(prompts), len(session.prompts), dropped),
    }
    say_stages(stages)
    if not session.prompts:
        raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
    judges = Judges(config.reward_model, config.door.told, config.seed, config.decoding.batch_size)

    facts = {"decoded_from": config.model, "strategy": config.strategy}
    writer = runs.start(config.output, "decode", config, inputs=intake.files, facts=facts)
    writer.count_stages(stages)
    intake.quarantine.save(writer.path / reading.QUARANTINE)
    answers = session.answers(strategy, config.seed, config.draws)
    records = [answer.record(judges.rewards(answer)) for answer in answers]
    lines = "".join(files.to_json(record) + "\n" for record in records)
    files.write_text(writer.path / runs.DECODED, lines)
    if config.decoding.n > 1:  # one response a prompt is nothing to choose from
        reading.write(writer.path / reading.PREFERENCES, _candidates(session.prompts, records, config))
    figures = summary(records, config.seed)
    writer.write_metrics({**figures, **session.figures})
    _show(figures, session.figures, records, config)
    return writer.finish()


def summary(records: Sequence[dict[str, Any]], seed: int) -> dict[str, Estimate]:
    """Return the mean over responses of every total and reward, with intervals clustered by opening."""
    totals = ("response_tokens", "policy_share", "kl", "kl_policy", "log_ratio", "monte_carlo", "complete")
    columns = {name: [float(one[name]) for one in records] for name in totals if name in records[0]}
    openings = [one["opening"] for one in records]
    found = {name: statistics.mean(values, openings, seed) for name, values in columns.items()}
    for model in records[0]["rewards"]:
        scored = [one for one in records if one["rewards"][model] is not None]
        rewards = [one["rewards"][model] for one in scored]
        found[f"reward_{Path(model).name}"] = statistics.mean(rewards, [one["opening"] for one in scored], seed)
    return found


def _candidates(prompts: Sequence[Any], records: Sequence[dict[str, Any]], config: Config) -> list[Candidates]:
    """Return the responses as a data set, scored by the first reward model."""
    n, first = config.decoding.n, next(iter(config.reward_model), None)
    found = []
    for place, one in enumerate(prompts):
        rows = records[place * n : (place + 1) * n]
        responses = tuple(
            Drawn(row["response"], row["complete"]).response(row["rewards"][first] if first else None) for row in rows
        )
        found.append(Candidates(prompt=one.prompt, responses=responses, id=one.id, source=one.source))
    return found


def _show(
    figures: dict[str, Estimate], speed: dict[str, float], records: Sequence[dict[str, Any]], config: Config
) -> None:
    """Print the figures, what decoding took, and a few responses."""
    table = Table("a response", "mean", f"{LEVEL:.0%} interval", "n", title=config.strategy, title_justify="left")
    for name, estimate in figures.items():
        table.add_row(name.replace("_", " "), f"{estimate.value:.4f}", estimate.interval(), str(estimate.n))
    show(table)
    show("KL in nats, summed over a response: kl of what was used, kl policy of the policy, from the reference")
    taken = f"; {speed['drafts_taken']:.1%} of the drafts taken" if "drafts_taken" in speed else ""
    read = f"policy read {speed['tokens_read_by_policy']:,.0f}, reference {speed['tokens_read_by_reference']:,.0f}"
    show(f"{speed['tokens']:,.0f} tokens, {speed['tokens_per_second']:.1f} a second; {read}{taken}")
    for record in records[:SHOWN]:
        show(Text(f"{record['id']}: {visible(record['response'])[:200]}"))
