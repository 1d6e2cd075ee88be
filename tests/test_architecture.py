"""The floors of the house, and who may import what. A failure names the culprit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater

PACKAGE = Path(headwater.__file__).parent

FLOORS = {
    "headwater.cli": 7,
    "headwater.__main__": 8,
    "headwater.studies": 6,
    "headwater.commands": 5,
    "headwater.judging": 4,
    "headwater.signal": 4,
    "headwater.decoding": 4,
    "headwater.engine": 3,
    "headwater.outputs": 3,
    "headwater.report": 3,
    "headwater.data": 2,
    "headwater.runs": 2,
    "headwater.manifest": 2,
    "headwater.loopback": 2,
    "headwater.hub": 1,
    "headwater.config": 1,
    "headwater.console": 1,
    "headwater.statistics": 1,
    "headwater.files": 1,
    "headwater.endpoint": 1,
    "headwater.ledger": 1,
    "headwater.destinations": 1,
    "headwater.locks": 1,
    "headwater.errors": 0,
    "headwater.replies": 0,
    "headwater.caches": 0,
    "headwater.masking": 0,
    "headwater.marks": 0,
    "headwater.interrupts": 0,
    "headwater": 0,
}
"""A module imports lower floors, and its own wing; the wings of one floor never import each other."""

WITHOUT_TORCH = (
    "headwater.cli",
    "headwater.runs",
    "headwater.report.page",
    "headwater.commands.train_dpo",
    "headwater.commands.signal",
    "headwater.commands.judge",
    "headwater.commands.compare",
    "headwater.judging.judges",
    "headwater.judging.policies",
    "headwater.commands.lens",
    "headwater.signal.words",
    "headwater.signal.tokenwise",
    "headwater.report.lens.page",
    "headwater.signal.depth",
)
"""Modules that start without torch; and all of `headwater.data`."""

FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("headwater", *path.relative_to(PACKAGE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def wing(module: str) -> str:
    """The longest name in FLOORS that `module` is or lies in."""
    fitting = [name for name in FLOORS if module == name or (module.startswith(name + ".") and name != "headwater")]
    assert fitting, f"{module} has no floor: give it one in tests/test_architecture.py and README.md"
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
        if imported.startswith("headwater.commands")
    ]
    assert not culprits, "\n".join(culprits)


def test_transformers_stays_in_the_engine_and_the_decoder() -> None:
    culprits = [
        f"{module} imports {imported}"
        for module, path in modules()
        for imported in imports(path, top_level_only=True)
        if imported.split(".")[0] in ("transformers", "torch", "accelerate", "tokenizers")
        and not module.startswith(("headwater.engine", "headwater.decoding"))
    ]
    assert not culprits, "\n".join(culprits)


@pytest.mark.parametrize("library", ["trl", "pandas"])
def test_oracles_are_no_runtime_dependencies(library: str) -> None:
    culprits = [
        f"{module} imports {i}" for module, path in modules() for i in imports(path) if i.split(".")[0] == library
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


def test_the_readme_tree_names_every_module() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    tree = readme[readme.index("headwater/\n") : readme.index("```", readme.index("headwater/\n"))]
    missing = [str(path.name) for _, path in modules() if path.name != "__init__.py" and path.name not in tree]
    assert not missing, f"not in the README's tree: {missing}"
