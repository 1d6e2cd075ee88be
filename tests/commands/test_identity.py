"""What the data calls its rows changes no number: ids that are absent, all equal, shared, or those of other rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Preference
from headwater.results import runs
from tests.support.commands import succeed
from tests.support.serving import save_policy

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
NAMINGS: dict[str, Callable[[int], Any]] = {
    "absent": lambda row: None,
    "equal": lambda row: "same",
    "two_rows_each": lambda row: row // 2,  # numbers
    "as_headwater_names_rows": lambda row: f"data:{(row * 7) % PAIRS // 2 + 1}",
}
PAIRS = 24


@pytest.fixture(scope="module")
def corpus() -> list[Preference]:
    return generate(Corpus(pairs=PAIRS, seed=5))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, corpus: list[Preference]) -> Path:
    root = tmp_path_factory.mktemp("models")
    reading.write(root / "train.jsonl", generate(Corpus(pairs=40, seed=6)))
    quick = ["--model", MODEL, "--precision", "fp32", "--num-train-epochs", "1", "--eval-fraction", "0.1"]
    succeed("train-reward", "--data", root / "train.jsonl", "--output", root / "rm", *quick)
    save_policy(root / "policy", corpus, MODEL)
    save_policy(root / "reference", corpus, MODEL, seed=1)
    return root


def written(folder: Path, corpus: Sequence[Preference], naming: Callable[[int], Any]) -> Path:
    """Write pairs under other names; one of every third pair is too long for the models."""
    path = folder / "data.jsonl"
    lines = []
    for row, pair in enumerate(corpus):
        texts = {"prompt": pair.prompt[-1].content, "chosen": pair.chosen.text, "rejected": pair.rejected.text}
        texts["rejected"] += " and so on" * (200 if row % 3 == 0 else 0)
        name = naming(row)
        lines.append(json.dumps(texts | ({} if name is None else {"id": name})))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def numbers(value: Any) -> Any:
    """What was computed: everything but the names of rows and files."""
    if isinstance(value, dict):
        left_out = ("id", "link", "source", "name")
        return {name: numbers(one) for name, one in value.items() if name not in left_out}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return re.sub(r"\S*data\S*", "", value) if isinstance(value, str) else value


def everything(run: Path, *files: str) -> Any:
    found = runs.load(run)
    texts = [json.loads((run / file).read_text(encoding="utf-8")) for file in files]
    return numbers([found.records(), found.metrics, *texts])


def evaluated(data: Path, models: Path, out: Path) -> Any:
    call = ["evaluate", "--dataset", data, "--model", models / "rm", "--allow-leakage", "--max-length", "400"]
    succeed(*call, "--output", out / "all")
    succeed(*call, "--output", out / "cut", "--keep", "50%", "--part", "random-span", "--against", out / "all")
    return [everything(out / name, "diagnostics.json") for name in ("all", "cut")]


def policy_evaluated(data: Path, models: Path, out: Path) -> Any:
    both = ["--model", models / "policy", "--reference", models / "reference"]
    call = ["evaluate", "--dataset", data, *both, "--max-length", "400", "--weights", "down_sample()"]
    succeed(*call, "--output", out / "by-policy")
    return everything(out / "by-policy", "diagnostics.json")


def signalled(data: Path, models: Path, out: Path) -> Any:
    call = ["signal", data, "--model", models / "rm", "--allow-leakage", "--max-length", "400"]
    succeed(*call, "--ratios", "25%", "50%", "--output", out / "s")
    return everything(out / "s", "curves.json")


def seen(data: Path, models: Path, out: Path) -> Any:
    call = ["lens", data, "--model", models / "rm", "--allow-leakage", "--max-length", "400"]
    succeed(*call, "--output", out / "l")
    links = [entry["link"] for entry in json.loads((out / "l" / "lens.json").read_text())["entries"]]
    assert len(set(links)) == len(links)
    return everything(out / "l", "lens.json")


def selected(data: Path, models: Path, out: Path) -> Any:
    succeed("score", "--input", data, "--model", models / "rm", "--output", out / "scored.jsonl", "--max-length", 400)
    call = ["select", "--input", data, "--by", "reward_gap()", "--budget", "50%", "--output", out / "best.jsonl"]
    succeed(*call, "--rewards", runs.beside(out / "scored.jsonl"), "--export-for-annotation", out / "people.jsonl")
    people = [json.loads(line) for line in (out / "people.jsonl").read_text().splitlines()]
    chosen = [row.fields for row in reading.read_rows(out / "best.jsonl")]
    return numbers([runs.load(runs.beside(out / "scored.jsonl")).records(), people, chosen])


def trained(data: Path, models: Path, out: Path) -> Any:
    call = ["train-dpo", "--data", data, "--model", models / "policy", "--output", out / "dpo", "--precision", "fp32"]
    cut = ["--keep", "50%", "--max-length", "400", "--weights", "down_sample()"]
    succeed(*call, *cut, "--num-train-epochs", "1", "--logging-steps", "1", "--eval-fraction", "0.25")
    return [{name: row.get(name) for name in ("loss", "eval_loss")} for row in runs.load(out / "dpo").history]


@pytest.mark.parametrize("command", [evaluated, policy_evaluated, signalled, seen, selected, trained])
def test_numbers_do_not_depend_on_ids(
    command: Callable[[Path, Path, Path], Any], corpus: list[Preference], models: Path, tmp_path: Path
) -> None:
    found = {}
    for name, naming in NAMINGS.items():
        folder = tmp_path / name
        folder.mkdir()
        found[name] = command(written(folder, corpus, naming), models, folder)
    for name, numbers in found.items():
        assert numbers == found["absent"], name
