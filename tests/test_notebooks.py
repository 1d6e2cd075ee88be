"""The notebooks: their code runs in order on tiny settings, here the one whose numbers are compared by hand."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest

import headwater
from headwater import interface
from headwater.config.options import ALIASES
from headwater.data.topic_pairs import TopicPairs, generate

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def code_of(name: str) -> list[str]:
    """The code of the cells of a notebook."""
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_call_what_exists(name: str) -> None:
    """Every `hw.name` is a part of the interface, and its keyword arguments are options."""
    for node in ast.walk(ast.parse("\n".join(code_of(name)))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hw":
            assert node.attr in headwater.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"hw.{name}" for name in interface.FUNCTIONS}:
            assert isinstance(node.func, ast.Attribute)
            known = set(inspect.signature(getattr(headwater, node.func.attr)).parameters)
            known |= {other for name in known for other in ALIASES.get(name, ())}
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert given <= known, f"{node.func.attr}: {given - known}"


def test_dpo_from_scratch_gives_the_numbers_of_headwater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own cells assert that losses and rewards are equal."""
    monkeypatch.chdir(tmp_path)
    rows = headwater.load(generate(TopicPairs(pairs=24)).policy)
    base = headwater.train_sft(rows, "scratch(hidden=32, layers=1, vocab=400)", output="tiny", eval_fraction=0.0)
    settings = "PAIRS, STEPS, LEARNING_RATE, BETA = "
    swapped = {
        '"models/SmolLM2-135M-Instruct"': f'"{base}"',
        f"{settings}12, 6, 1e-5, 0.1": f"{settings}4, 3, 1e-3, 0.1",
        "max_new_tokens=48": "max_new_tokens=4",
    }
    names: dict[str, object] = {}
    for cell in code_of("dpo_from_scratch.ipynb"):
        code = cell
        for before, after in swapped.items():
            code = code.replace(before, after)
        exec(compile(code, "dpo_from_scratch.ipynb", "exec"), names)
    steps = names["by_hand"]
    assert isinstance(steps, list) and len(steps) == 3 and steps[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
