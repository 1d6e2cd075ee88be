"""The model card of a run: results and fingerprint as the run has them, and a snippet that gives the same score."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs

SMALL = ["--model", "scratch(hidden=32, layers=1, vocab=400)", "--precision", "fp32", "--eval-fraction", "0.25"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cards")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=80, seed=6)))
    for command in ("train-reward", "train-dpo"):
        call = [command, "--data", root / "pairs.jsonl", "--output", root / command, *SMALL]
        assert cli.main([str(part) for part in call]) == 0
    return root


def front_of(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.mark.parametrize("command", ["train-reward", "train-dpo"])
def test_a_card_says_what_the_run_says(command: str, study: Path) -> None:
    card, run = (study / command / "README.md").read_text(), runs.load(study / command)
    accuracy = run.metrics["eval_rewards/accuracies"]
    front = front_of(card)
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy, abs=1e-6)
    assert front["pipeline_tag"] == {"train-reward": "text-classification"}.get(command, "text-generation")
    low, high = (run.metrics[f"eval_rewards/accuracies_{bound}"] for bound in ("low", "high"))
    assert 0 < low < accuracy < high < 1
    assert f"| accuracy | {accuracy:.4f} | {low:.4f} to {high:.4f} |" in card
    assert "flatters" not in card
    assert f"On {run.metrics['held_out_pairs']} pairs held out" in card
    assert hashlib.sha256((study / "pairs.jsonl").read_bytes()).hexdigest() in card
    assert str(study) not in card


def test_the_snippet_of_a_card_gives_what_score_gives(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["score", "--input", study / "pairs.jsonl", "--output", study / "scored.jsonl", "--model"]
    assert cli.main([str(part) for part in (*call, study / "train-reward")]) == 0
    snippet = re.search(r"```python\n(.*?)```", (study / "train-reward" / "README.md").read_text(), re.DOTALL)
    assert snippet
    monkeypatch.chdir(study)
    for preference in reading.load(study / "scored.jsonl").preferences[:4]:
        for response in (preference.chosen, preference.rejected):
            turns = [{"role": message.role, "content": message.content} for message in preference.prompt]
            turns.append({"role": "assistant", "content": response.text})
            lines = [
                f"messages = {turns!r}" if line.startswith("messages") else line for line in snippet[1].split("\n")
            ]
            names: dict[str, Any] = {}
            exec("\n".join(lines), names)
            assert names["reward"] == pytest.approx(response.score, abs=1e-5)


def test_the_snippet_of_a_policy_answers(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = re.search(r"```python\n(.*?)```", (study / "train-dpo" / "README.md").read_text(), re.DOTALL)
    assert snippet
    monkeypatch.chdir(study)
    names: dict[str, Any] = {}
    exec(snippet[1].replace("max_new_tokens=256", "max_new_tokens=4"), names)
    assert isinstance(names["answer"], str)
