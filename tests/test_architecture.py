"""The floors of the house, and who may import what. A failure names the culprit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater
from tests.support import tree

PACKAGE = Path(headwater.__file__).parent

FLOORS = {
    "headwater.__main__": 12,
    "headwater.interface": 12,
    "headwater.cli": 11,
    "headwater.studies": 10,
    "headwater.commands": 9,
    "headwater.signals": 8,
    "headwater.decoding": 8,
    "headwater.evaluation": 8,
    "headwater.training": 7,
    "headwater.rewards": 7,
    "headwater.reporting": 7,
    "headwater.forward": 6,
    "headwater.models": 5,
    "headwater.results": 4,
    "headwater.data": 3,
    "headwater.losses": 3,
    "headwater.network": 2,
    "headwater.noninferiority": 2,
    "headwater.config": 1,
    "headwater.console": 1,
    "headwater.files": 1,
    "headwater.journal": 1,
    "headwater.statistics": 1,
    "headwater.errors": 0,
    "headwater.interrupts": 0,
    "headwater.marks": 0,
    "headwater.masking": 0,
    "headwater": 0,
}
"""A module imports lower floors and its own folder; folders of one floor do not import each other."""

WITHOUT_TORCH = (
    "headwater.cli",
    "headwater.interface",
    "headwater.results.runs",
    "headwater.reporting.page",
    "headwater.commands.train_dpo",
    "headwater.commands.signal",
    "headwater.commands.judge",
    "headwater.commands.compare",
    "headwater.evaluation.judges",
    "headwater.evaluation.policies",
    "headwater.commands.lens",
    "headwater.signals.words",
    "headwater.signals.tokenwise",
    "headwater.reporting.lens.page",
    "headwater.signals.depth",
)
"""Modules that start without torch; and all of `headwater.data`."""

TORCH = tuple(f"headwater.{name}" for name in ("training", "rewards", "forward", "models", "losses", "decoding"))
"""Folders whose modules may import torch and transformers at the top."""

FRAMES = ("results.stored", "interface.pairs", "interface.result")
"""Modules with functions that return data frames."""

FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("headwater", *path.relative_to(PACKAGE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def wing(module: str) -> str:
    """The longest name in FLOORS that `module` is or lies in."""
    fitting = [name for name in FLOORS if module == name or (module.startswith(name + ".") and name != "headwater")]
    assert fitting, f"{module} has no floor: give it one in tests/test_architecture.py and docs/architecture.md"
    return max(fitting, key=len)


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_modules_import_only_downward() -> None:
    culprits = []
    for module, path in modules():
        for imported in imports(path):
            if not imported.startswith("headwater") or imported == "headwater.__version__":
                continue
            mine, theirs = wing(module), wing(imported)
            if mine != theirs and FLOORS[theirs] >= FLOORS[mine]:
                culprits.append(f"{module} (floor {FLOORS[mine]}) imports {imported} (floor {FLOORS[theirs]})")
    assert not culprits, "\n".join(culprits)


def test_commands_never_import_each_other() -> None:
    culprits = [
        f"{module} imports {imported}"
        for module, path in modules()
        if module.startswith("headwater.commands.")
        for imported in imports(path)
        if imported.startswith("headwater.commands") and not imported.startswith("headwater.commands._flags")
    ]
    assert not culprits, "\n".join(culprits)


def test_torch_and_transformers_stay_in_their_folders() -> None:
    culprits = [
        f"{module} imports {imported}"
        for module, path in modules()
        for imported in imports(path, top_level_only=True)
        if imported.split(".")[0] in ("transformers", "torch", "accelerate", "tokenizers")
        and not module.startswith(TORCH)
    ]
    assert not culprits, "\n".join(culprits)


@pytest.mark.parametrize(("library", "allowed"), [("trl", set()), ("pandas", {f"headwater.{name}" for name in FRAMES})])
def test_optional_libraries_are_no_runtime_dependencies(library: str, allowed: set[str]) -> None:
    """pandas is imported where a user asks for a data frame, inside of the function; TRL nowhere."""
    culprits = [
        f"{module} imports {i}"
        for module, path in modules()
        for i in imports(path, top_level_only=module in allowed)
        if i.split(".")[0] == library
    ]
    assert not culprits, "\n".join(culprits)


def test_what_must_start_without_torch_does() -> None:
    wanted = [*WITHOUT_TORCH, *(module for module, _ in modules() if module.startswith("headwater.data"))]
    code = f"""
import sys, importlib
for module in {wanted!r}:
    importlib.import_module(module)
    assert 'torch' not in sys.modules, module
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = [str(path) for _, path in modules() if path.stem in FORBIDDEN_NAMES]
    assert not drawers


def test_files_stay_readable_in_one_sitting() -> None:
    long = [f"{path}: {n} lines" for _, path in modules() if (n := len(path.read_text("utf-8").splitlines())) > 420]
    assert not long, "\n".join(long)


def test_the_tree_of_the_documentation_is_the_code() -> None:
    assert tree.in_the_documentation() == tree.of_the_code(), "run `python -m tests.support.tree`"
