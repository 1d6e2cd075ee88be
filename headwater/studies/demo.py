"""Train and evaluate on generated data whose signal depth is known, and write a report.

In the generated pairs, only the first part of a response tells which one is better. A small model is fine-tuned on the
chosen responses. For every kept ratio, a reward model and a DPO policy are trained on responses truncated to that ratio
and evaluated on full held-out responses. The report shows that accuracy stops growing at the planted depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from headwater import config as configs
from headwater.commands import evaluate, preprocess, report, train_dpo, train_reward, train_sft
from headwater.console import say, show, steps
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.truncation_options import TruncationOptions
from headwater.reporting.findings import findings
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.training.options import TrainingOptions

EXAMPLE = "headwater demo --output demo"
DEPTHS = (Fraction(1, 3), Fraction(2, 3), Fraction(1), Fraction(3, 2))
"""Kept ratios of the study, as multiples of the planted depth; full responses are always added."""


Step = tuple[str, Callable[[], object]]
"""A step of the study: its name and its function."""

HELP = {
    "Output": ("output", "overwrite"),
    "Study": ("pairs", "planted_depth", "model", "seed"),
}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater demo`."""

    output: Path = Path("demo")
    """Directory of the study: the data, a run for every step, and report.html."""
    pairs: int = 1400
    """Number of pairs to generate."""
    planted_depth: float = 0.3
    """Share of every response, from its start, that holds all the deciding words; in [0.2, 0.8]."""
    model: str = "scratch(hidden=64, layers=2, vocab=1024)"
    """Model to start from: Hugging Face name or path, or scratch(…) for random weights."""
    seed: int = 0
    """Random seed of the data, the weights, the order of pairs and the intervals."""
    overwrite: bool = False
    """Replace an existing demo at --output."""


@dataclass(frozen=True)
class Places:
    """Paths of the runs of the study."""

    root: Path

    def cut(self, keep: Fraction) -> Path:
        """Return the data run of one kept ratio."""
        return self.root / f"cut-{_percent(keep)}"

    def trained(self, kind: str, keep: Fraction) -> Path:
        """Return the training run of one kind and kept ratio."""
        return self.root / f"{kind}-{_percent(keep)}"

    def judged(self, kind: str, keep: Fraction, seen: Fraction) -> Path:
        """Return the evaluation of one kind and kept ratio on the `seen` part of held-out responses."""
        return self.root / f"{kind}-{_percent(keep)}-on-{_percent(seen)}"


def run(config: Config) -> Path:
    """Run the study and return the path of its report."""
    config = _taken_up(config)
    runs.check_free(config.output / "corpus", config.overwrite)
    corpus = Corpus(pairs=config.pairs, planted_depth=config.planted_depth, seed=config.seed)
    places = Places(config.output)
    keeps = kept_ratios(config.planted_depth)
    at_keeps = [(keep, *step) for keep in keeps for step in _steps_at(config, places, keep)]
    with steps(3 + len(at_keeps)) as bar:
        with bar.step("generate the corpus"):
            _write_corpus(corpus, config)
        with bar.step("fine-tune the model on it"):
            train_sft.run(_sft(config))
        for keep, name, action in at_keeps:
            with bar.step(f"{_percent(keep)} %: {name}"):
                action()
        with bar.step("write the report"):
            written = report.run(
                report.Config(
                    runs=tuple(_shown(config, places)), output=config.output / "report.html", overwrite=config.overwrite
                )
            )
    show(" ".join(findings([runs.load(path) for path in _shown(config, places)])))
    show(f"\nReport: {written.resolve()}")
    return written


def _taken_up(config: Config) -> Config:
    """Return the config, with `overwrite` for a demo of the same settings that was stopped before its report."""
    before = runs.config_of(config.output / "corpus")
    same = all(before.get(name) == value for name, value in configs.flatten(config).items() if name != "overwrite")
    if config.overwrite or not before or not same or (config.output / "report.html").exists():
        return config
    say(f"{config.output}: an unfinished demo with the same settings is replaced")
    return replace(config, overwrite=True)


def kept_ratios(planted_depth: float) -> list[Fraction]:
    """Return the kept ratios of the study, shortest first, in whole percent."""
    ratios = {Fraction(round(100 * depth * Fraction(str(planted_depth))), 100) for depth in DEPTHS}
    return [*sorted(ratio for ratio in ratios if ratio < 1), Fraction(1)]


def _percent(keep: Fraction) -> int:
    return int(100 * keep)


def _write_corpus(corpus: Corpus, config: Config) -> None:
    """Write the corpus as a data run, with its planted depth."""
    facts: Facts = {"planted_depth": corpus.planted_depth}
    preferences = generate(corpus)
    writer = runs.start(config.output / "corpus", "demo-corpus", config, facts=facts)
    writer.count("generate", len(preferences), len(preferences), {})
    reading.write(writer.path / reading.PREFERENCES, preferences)
    writer.finish()


def _options(config: Config, learning_rate: float, epochs: float) -> TrainingOptions:
    # fp32 everywhere: a model this small is not faster in bf16, and the figures stay the same on every machine.
    return TrainingOptions(
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=16,
        precision="fp32",
        eval_fraction=0.25,
        seed=config.seed,
    )


def _sft(config: Config) -> train_sft.Config:
    return train_sft.Config(
        data=config.output / "corpus",
        output=config.output / "sft",
        model=config.model,
        overwrite=config.overwrite,
        training=_options(config, 3e-3, 1),
    )


def _steps_at(config: Config, places: Places, keep: Fraction) -> Iterator[Step]:
    """Yield the steps of one kept ratio: truncate, train both models, evaluate both."""
    base = str(places.root / "sft")
    cut = preprocess.Config(
        input=places.root / "corpus",
        output=places.cut(keep),
        truncate_percentage=str(_percent(keep)),
        tokenizer=base,
        overwrite=config.overwrite,
    )
    yield "truncate the responses", partial(preprocess.run, cut)
    # A reward is read at the last token: with an end token on cut responses too, training and evaluation read the same
    # one.
    reward = train_reward.Config(
        data=places.cut(keep),
        output=places.trained("reward", keep),
        model=base,
        truncation=TruncationOptions(end="always"),
        overwrite=config.overwrite,
        training=_options(config, 1e-3, 3),
    )
    yield "train a reward model", partial(train_reward.run, reward)
    yield from _judgements(config, places, "reward", keep)
    dpo = train_dpo.Config(
        data=places.cut(keep),
        output=places.trained("dpo", keep),
        model=base,
        overwrite=config.overwrite,
        training=_options(config, 1e-3, 2),
    )
    yield "train a policy with DPO", partial(train_dpo.run, dpo)
    yield from _judgements(config, places, "dpo", keep)


def _judgements(config: Config, places: Places, kind: str, keep: Fraction) -> Iterator[Step]:
    """Yield the evaluations of one model: on full held-out responses, and on equally truncated ones."""
    for seen in sorted({Fraction(1), keep}, reverse=True):
        judge = evaluate.Config(
            model=str(places.trained(kind, keep)),
            dataset=places.root / "corpus",
            output=places.judged(kind, keep, seen),
            truncation=TruncationOptions(keep=str(float(seen))),
            seed=config.seed,
            overwrite=config.overwrite,
        )
        name = "evaluate it on full responses" if seen == 1 else "evaluate it on truncated responses"
        yield name, partial(evaluate.run, judge)


def _shown(config: Config, places: Places) -> Iterator[Path]:
    """Yield the runs of the report, in the order of the study."""
    yield config.output / "corpus"
    yield config.output / "sft"
    for kind in ("reward", "dpo"):
        for keep in kept_ratios(config.planted_depth):
            yield places.trained(kind, keep)
    for kind in ("reward", "dpo"):
        for keep in kept_ratios(config.planted_depth):
            yield from dict.fromkeys([places.judged(kind, keep, Fraction(1)), places.judged(kind, keep, keep)])
