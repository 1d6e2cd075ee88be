"""The steps of the demo on a real model, as commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headwater.results import runs
from headwater.studies.command_steps import CommandStep

USUAL_PAIRS = 480
"""Number of pairs to which the usual durations belong."""
KEPT_IF_UNDECIDED = "0.5"
"""Ratio to keep where `signal` recommends none: half, so that a truncation is seen all the same."""
MARGIN = "5"
"""Points of accuracy that the recommended ratio may lose: with few pairs, 2 points are never decided."""
ANSWER_TOKENS = "96"


@dataclass(frozen=True)
class Plan:
    """Directories and commands of a demo."""

    root: Path
    model: str
    judge_base: str
    seed: int
    count: int
    trained_layers: int
    """Layers of the policy and of its reward model that are trained: the last ones."""

    @property
    def pairs(self) -> Path:
        """Run of the pairs, in three parts."""
        return self.root / "pairs"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    def at(self, name: str) -> str:
        """Return the directory of a run, as text."""
        return str(self.root / name)

    def part(self, name: str) -> str:
        """Return the file of a part of the pairs, as text."""
        return str(self.pairs / f"{name}.jsonl")

    @property
    def keep(self) -> str:
        """The ratio that `signal` recommends, or half where it recommends none."""
        found = runs.facts_of(self.root / "signal").get("recommended_keep")
        return KEPT_IF_UNDECIDED if found is None else f"{float(found):g}"

    def shown(self) -> list[Path]:
        """Return the runs of the report, in their order."""
        names = ("signal", "reward-on-heldout", "judge-on-heldout", "reward", "judge")
        policies = ("dpo-cut", "dpo", "answers", "compared")
        return [self.pairs, *(self.root / name for name in (*names, *policies))]

    def steps(self) -> list[CommandStep]:
        """Return the steps in their order."""
        return [*self._signal(), *self._judge(), *self._policies(), *self._answers(), self._page()]

    def _step(self, says: str, command: str, output: str, seconds: float, *arguments: str) -> CommandStep:
        line = [*arguments, "--output", self.at(output)]
        scaled = seconds * self.count / USUAL_PAIRS
        return CommandStep(says, command, lambda: line, self.root / output, scaled)

    def _training(self, rate: str, epochs: str) -> Sequence[str]:
        rates = ["--learning-rate", rate, "--num-train-epochs", epochs, "--seed", str(self.seed)]
        return ["--eval-data", self.part("heldout"), *rates, "--precision", "fp32"]

    @property
    def _light(self) -> Sequence[str]:
        return ["--freeze-layers", str(self.trained_layers), "--per-device-train-batch-size", "4"]

    def _signal(self) -> list[CommandStep]:
        model = self.at("reward")
        # Trained at several cuts at once, the model scores prefixes as it was trained.
        trained = ["--at", "0.25,0.5,1.0", *self._light, *self._training("3e-4", "2")]
        return [
            self._step(
                "train a reward model that reads every prefix", "train-reward", "reward", 120,
                self.part("policy"), "--model", self.model, *trained,
            ),
            self._step(
                "test it on held-out pairs", "evaluate", "reward-on-heldout", 25, model, self.part("heldout")
            ),
            self._step(
                "where in a response the preference is decided, on other prompts", "signal", "signal", 60,
                self.part("judge"), "--model", model, "--margin", MARGIN, "--seed", str(self.seed), "--span-ratios",
            ),
        ]  # fmt: skip

    def _judge(self) -> list[CommandStep]:
        return [
            self._step(
                "train a judge from another model, on prompts that the policy never sees", "train-reward", "judge", 90,
                self.part("judge"), "--model", self.judge_base, *self._training("1e-4", "3"),
            ),
            self._step(
                "test the judge on held-out pairs", "evaluate", "judge-on-heldout", 10,
                self.at("judge"), self.part("heldout"),
            ),
        ]  # fmt: skip

    def _policies(self) -> list[CommandStep]:
        beginnings = self._dpo("align the model by DPO on the part of every response that decides", "dpo-cut", 90)
        kept = replace(beginnings, arguments=lambda: [*beginnings.arguments(), "--keep", self.keep])
        return [kept, self._dpo("align it by DPO on whole responses", "dpo", 150)]

    def _dpo(self, says: str, output: str, seconds: float) -> CommandStep:
        given = ["--model", self.model, "--loss", "rpo(beta=0.1, alpha=1.0)", *self._light]
        return self._step(says, "train-dpo", output, seconds, self.part("policy"), *given, *self._training("4e-4", "2"))

    def _answers(self) -> list[CommandStep]:
        asked = str(self.pairs / "prompts.jsonl")
        models = [self.model, self.at("dpo-cut"), self.at("dpo")]
        answers = [self.at(f"answers/{Path(model).name}.json") for model in models]
        judges = [f"reward(model='{self.at(name)}')" for name in ("judge", "reward")]
        return [
            self._step(
                "answer held-out prompts before and after", "generate", "answers", 60,
                asked, "--model", *models, "--max-new-tokens", ANSWER_TOKENS, "--seed", str(self.seed),
            ),
            self._step(
                "let both reward models judge the answers", "judge", "judged", 15,
                *answers[1:], "--baseline", answers[0], "--judge", *judges,
            ),
            self._step("compare the models by these judgements", "compare", "compared", 3, self.at("judged")),
        ]  # fmt: skip

    def _page(self) -> CommandStep:
        line = [*map(str, self.shown()), "--output", str(self.report), "--overwrite"]
        return CommandStep("write the report", "report", lambda: line, self.report, 5)
