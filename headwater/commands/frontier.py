"""Run grids of decoding strategies, and show reward against KL: which one is worth its distance from the reference.

Every point is kept as it is done, so that the same command goes on where it was stopped. Interpolation is the
baseline; the gap to it at equal KL, with its interval, is what a strategy is worth.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.table import Table

from headwater import config as configs
from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show, steps
from headwater.data import reading
from headwater.data.published import published_points
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.sampling import asked
from headwater.data.templates import renders_conversations
from headwater.decoding.frontier import BASELINE, Point, Row, best_of, frontier, recommended
from headwater.decoding.options import DecodingOptions
from headwater.errors import DataError, UsageError
from headwater.files import destinations, locks
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.decoding.session import Judges, Session

EXAMPLE = "headwater frontier --model runs/dpo --input pairs.jsonl --output frontier --reward-model runs/reward"
SETTINGS = "settings.yaml"
"""What all points have in common; other settings need another directory."""
FRONTIER = "frontier.json"
"""In the summary's run: a row a point and reward model, with KL, reward and gap to the baseline."""
PUBLISHED = "published.json"
"""In the summary's run: the points of papers, [[KL, reward], …] by the names they were asked for with."""
Records = list[dict[str, Any]]

HELP = {
    "Input": ("model", "input", "reference", "split", "limit"),
    "Output": ("output",),
    "Strategies": ("first", "thresholds", "weights", "best_of"),
    "Rewards": ("reward_model", "budget"),
    "Sampling": ("n", "temperature", "max_new_tokens", "batch_size", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater frontier`."""

    model: Annotated[str, POSITIONAL]
    """Policy: a training run, path or Hugging Face name."""
    input: Annotated[Path, POSITIONAL]
    """Data whose prompts are answered, each once: a file, directory, pattern, run, or name on the hub."""
    reward_model: tuple[str, ...]
    """Reward models that score every response: training runs, paths or Hugging Face names. The first one picks the
    best of n."""
    output: Path = Path("frontier")
    """Directory of the study, which holds a run for every point and a summary."""
    reference: str | None = None
    """Reference model. Default: the one that the policy's training run names."""
    first: tuple[int, ...] = (5, 10, 20, 50)
    """Numbers of tokens of length_control(first=…) to try."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.5, 1.0)
    """Thresholds of kl_threshold(threshold=…) to try, in nats."""
    below: float = 0.0
    """Weight of the policy where KL is below the threshold: 0 as in the paper, 0.5 as in its code."""
    weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.5)
    """Weights of interpolate(weight=…), the baseline, to try; 0 and 1, the two models, are always tried."""
    best_of: tuple[int, ...] = (4,)
    """Numbers of responses of the reference from which the first reward model picks the best."""
    budget: float | None = None
    """KL in nats that a response may spend, for the recommendation. Default: half of what the policy spends."""
    published: tuple[str, ...] = ()
    """Points of papers to draw behind, as FILE.json:NAME, where NAME holds [KL, reward] pairs; their rewards are
    from other models."""
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    seed: int = 42
    """Random seed of the responses, the same at every point, and of the bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if not self.reward_model:
            raise UsageError("--reward-model", "is empty", "name one or more")
        if any(n < 2 for n in self.best_of):
            raise UsageError(f"--best-of {min(self.best_of)}", "expected 2 or more")
        if self.best_of and self.decoding.temperature == 0:
            raise UsageError("--best-of", "greedy responses are all the same", "write --best-of without a number")
        if self.budget is not None and self.budget < 0:
            raise UsageError(f"--budget {self.budget:g}", "expected nats, 0 or more")

    def common(self) -> dict[str, Any]:
        """Return the settings that a point depends on; speed and grid are none of them."""
        free = (
            "output",
            "first",
            "thresholds",
            "below",
            "weights",
            "best_of",
            "budget",
            "published",
            "batch_size",
            "draft",
        )
        return {name: value for name, value in configs.flatten(self).items() if name not in free}

    def grid(self) -> list[tuple[str, str, float]]:
        """Return the points: constructor call, family and setting."""
        points = [("reference", BASELINE, 0.0), ("policy", BASELINE, 1.0)]
        points += [(f"interpolate(weight={w:g})", BASELINE, w) for w in self.weights if w not in (0, 1)]
        points += [(f"length_control(first={t})", "length_control", t) for t in self.first]
        below = f", below={self.below:g}" if self.below else ""
        points += [(f"kl_threshold(threshold={b:g}{below})", "kl_threshold", b) for b in self.thresholds]
        return list(dict.fromkeys(points))


@renders_conversations
def run(config: Config) -> Path:
    """Decode and score the points that are missing, and return the summary's run directory."""
    from headwater.decoding.session import Judges, Session, load_pair
    from headwater.decoding.strategies import STRATEGIES

    for name, *_ in config.grid():
        configs.build(name, STRATEGIES, "strategy")
    _check_settings(config)
    published = {name: published_points(name) for name in config.published}
    row_reader = reading.stream(config.input, config.read_options)
    prompts, row_counts = asked(row_reader)
    if not prompts:
        raise row_reader.no_usable_rows()
    session = Session(load_pair(config.model, config.reference, config.seed), prompts, config.decoding)
    stages = {"read": row_reader.row_counts, "prompts": row_counts}
    stages["decode"] = RowCounts(len(prompts), len(session.prompts), +Counter(session.dropped))
    say_stages(stages)
    if not session.prompts:
        raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
    _begin(config)
    judges = Judges(config.reward_model, config.read_options.told, config.seed, config.decoding.batch_size)
    records = _points(config, session, judges)

    facts = {"decoded_from": config.model, "reward_models": list(config.reward_model)}
    writer = runs.start(config.output / "summary", "frontier", config, inputs=row_reader.files, facts=facts)
    writer.count_stages(stages)
    row_reader.quarantine.save(writer.path / reading.QUARANTINE)
    tables = {model: frontier(_columns(config, records, model), config.seed) for model in config.reward_model}
    rows = [{"reward_model": model, **_plain(row)} for model, table in tables.items() for row in table]
    files.write_json(writer.path / FRONTIER, rows)
    files.write_json(writer.path / PUBLISHED, published)
    metrics: dict[str, Estimate | str | float] = {}
    for model, table in tables.items():
        _show(table, model)
        metrics |= _recommend(table, model, config)
    writer.write_metrics(metrics)
    return writer.finish()


def _check_settings(config: Config) -> None:
    """Refuse a directory whose points were decoded with other settings. Errors: `UsageError`."""
    path = config.output / SETTINGS
    destinations.check_directory(config.output)
    locks.hold(config.output)
    if path.is_file():
        before, now = configs.read_yaml(path), config.common()
        changed = next((name for name, value in now.items() if before.get(name) != value), None)
        if changed:
            flag = f"--{changed.replace('_', '-')} {now[changed]}"
            raise UsageError(flag, f"{config.output} was begun with {before.get(changed)}", "name another --output")
    elif config.output.exists() and any(config.output.iterdir()):
        raise UsageError(f"--output {config.output}", "holds files that are not a frontier", "name another directory")


def _begin(config: Config) -> None:
    if not (config.output / SETTINGS).is_file():
        files.write_text(config.output / SETTINGS, configs.to_yaml(config.common()))


def _points(config: Config, session: Session, judges: Judges) -> dict[str, Records]:
    """Return the records of every point; those that are on disk are not decoded again."""
    from headwater.decoding.strategies import STRATEGIES

    wanted = {name: name for name, *_ in config.grid()}
    if config.best_of:
        wanted[f"best-of-{max(config.best_of)}"] = "reference"
    paths = {name: config.output / "points" / f"{_file_name(name)}.jsonl" for name in wanted}
    missing = [name for name in wanted if not paths[name].is_file()]
    say(f"frontier: {len(wanted)} points, {len(wanted) - len(missing)} done")
    with steps(len(missing)) as bar:
        for name in missing:
            n = max(config.best_of) if name.startswith("best-of-") else None
            strategy = configs.build(wanted[name], STRATEGIES, "strategy")
            with bar.step(name):
                answers = session.answers(strategy, config.seed, n=n)
                lines = [files.to_json(answer.record(judges.rewards(answer))) for answer in answers]
                files.write_text(paths[name], "\n".join(lines) + "\n")
    return {name: _read(path) for name, path in paths.items()}


def _file_name(strategy: str) -> str:
    return re.sub(r"[^a-z0-9_.=-]+", "-", strategy).strip("-")


def _read(path: Path) -> Records:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _columns(config: Config, records: Mapping[str, Records], model: str) -> Iterator[Point]:
    """Yield every point in numbers, by one reward model."""
    for name, family, setting in config.grid():
        rows = records[name]
        kl = np.array([row["kl"] for row in rows], dtype=np.float64)
        yield Point(name, family, setting, kl, _rewards(rows, model), [row["opening"] for row in rows])
    if config.best_of:
        most = max(config.best_of)
        rows = records[f"best-of-{most}"]
        own, picker = (_rewards(rows, each).reshape(-1, most) for each in (model, config.reward_model[0]))
        conversation_ids = [row["opening"] for row in rows[::most]]
        for n in sorted(set(config.best_of)):
            yield best_of(own, picker, conversation_ids, n)


def _rewards(rows: Sequence[dict[str, Any]], model: str) -> Any:
    return np.array([row["rewards"][model] for row in rows], dtype=np.float64)


def _plain(row: Row) -> dict[str, Any]:
    estimates = {name: getattr(row, name) for name in ("kl", "reward", "gap")}
    plain = {name: None if found is None else found._asdict() for name, found in estimates.items()}
    return {"name": row.name, "family": row.family, "setting": row.setting, **plain}


def _show(rows: Sequence[Row], model: str) -> None:
    """Print a line a point, by KL, with intervals beneath."""
    what = f"reward by {Path(model).name} against KL from the reference; {LEVEL:.0%} intervals, n = responses"
    heads = ("strategy", "KL", "reward", "above baseline")
    table = Table(*heads, "n", title=what, title_justify="left", show_lines=True)
    for column in table.columns:
        column.no_wrap = True
    for row in sorted(rows, key=lambda row: row.kl.value):
        cells = ["–" if found is None else _cell(found) for found in (row.kl, row.reward, row.gap)]
        table.add_row(row.name.replace("(", "\n(", 1), *cells, str(row.reward.n))
    show(table)
    show("KL: nats a response. Above baseline: reward over interpolation's at equal KL; – for the baseline itself,")
    show("and beyond what it reaches. best_of: KL is an upper bound; picked by the first reward model.")


def _cell(found: Estimate) -> str:
    bounds = "n too small" if found.low is None else f"{found.low:.3g}…{found.high:.3g}"
    return f"{found.value:.4g}\n{bounds}"


def _recommend(rows: Sequence[Row], model: str, config: Config) -> dict[str, Estimate | str | float]:
    """Say which point to take within the budget."""
    spent = next(row for row in rows if row.name == "policy").kl.value
    budget = spent / 2 if config.budget is None else config.budget
    found = recommended(rows, budget)
    given = "half of what the policy spends" if config.budget is None else "--budget"
    if found is None:
        show(f"within {budget:.4g} nats ({given}): no point of the grid")
        return {}
    reward, kl = found.reward, found.kl
    figures = f"reward {reward.value:.4f} {reward.interval()} at {kl.value:.4f} nats {kl.interval()}, n = {reward.n}"
    show(f"within {budget:.4g} nats ({given}): {found.name}, {figures}")
    key = Path(model).name
    return {f"recommended_by_{key}": found.name, f"budget_{key}": budget, f"reward_{key}": reward, f"kl_{key}": kl}
