"""A recipe: the YAML file that describes a study, read strictly. recipes/README.md describes the language."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from headwater.config import yaml_trees
from headwater.config.yaml_trees import Node
from headwater.errors import UsageError, did_you_mean
from headwater.studies.recipes.claims import Check, Claim
from headwater.studies.recipes.drawings import DRAWINGS, Drawn
from headwater.studies.recipes.tables import TABLES, Table

T = TypeVar("T")

DATA = "$HEADWATER_DATA"
"""Beginning of a path in the folder of real data: that of the variable, or shared/data beside the repository."""


@dataclass(frozen=True)
class Need:
    """Data, or a model, that a study needs: a path, or a name on the hub."""

    path: str | None = None
    """Path from the folder of the recipe, or below $HEADWATER_DATA."""
    hub: str | None = None
    get: str = ""
    """What to do where it is missing."""
    optional: bool = False
    """Whether the study does without it; for published curves."""
    place: str = ""

    def __post_init__(self) -> None:
        """Refuse a need without a place, and with two. Errors: `UsageError`."""
        if (self.path is None) == (self.hub is None):
            raise UsageError(self.place, "expected one of path and hub")

    def where(self, recipe: Path) -> str:
        """Return the path, or the name on the hub; `recipe` is the file of the recipe."""
        if self.hub is not None:
            return self.hub
        path = str(self.path)
        if path.startswith(f"{DATA}/"):
            folder = os.environ.get(DATA[1:]) or recipe.absolute().parents[2] / "shared" / "data"
            return os.path.normpath(Path(folder).absolute() / path[len(DATA) + 1 :])
        return os.path.normpath(recipe.absolute().parent / path)


@dataclass(frozen=True)
class Step:
    """A command, repeated over the values that the pattern of its cells names."""

    cell: str
    """Pattern of the names of its cells, such as `train-{keep}-{seed}`."""
    command: str
    options: Mapping[str, Node] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values that replace those of the study in this step."""
    place: str = ""


@dataclass(frozen=True)
class Recipe:
    """A study: what it asks, its cells, and what is made of them."""

    title: str
    question: str
    source: str
    steps: tuple[Step, ...]
    note: str = ""
    """A remark that every listing of the study shows, such as that it was not run here."""
    data: Mapping[str, Need] = field(default_factory=dict)
    models: Mapping[str, Need] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    checks: tuple[Check, ...] = ()
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Numbers that the source printed, by table and label."""
    tables: tuple[Table, ...] = ()
    figures: tuple[Drawn, ...] = ()
    file: Path = Path()

    @property
    def name(self) -> str:
        """Name of the study: that of its file."""
        return self.file.stem


def read(path: Path) -> Recipe:
    """Read a recipe. Errors: `UsageError`, with the line."""
    root = yaml_trees.root_of(path, "RECIPE")
    entries = root.entries()
    recipe = yaml_trees.build(Recipe, root, without=("tables", "figures", "file"))
    tables = tuple(_of_kind(TABLES, node) for node in _items(entries.get("tables")))
    figures = tuple(_of_kind(DRAWINGS, node) for node in _items(entries.get("figures")))
    found = Recipe(**(vars(recipe) | {"tables": tables, "figures": figures, "file": path}))
    _check_tables(found)
    return found


def _items(node: Node | None) -> Sequence[Node]:
    return node.items() if node else ()


def _of_kind(kinds: Mapping[str, type[T]], node: Node) -> T:
    """Return the table or figure of a mapping, by its `kind`."""
    entries = node.entries()
    if "kind" not in entries:
        raise UsageError(node.place, "has no kind", f"known: {', '.join(kinds)}")
    kind = entries["kind"].text()
    if kind not in kinds:
        raise UsageError(entries["kind"].place, f"unknown kind {kind}", did_you_mean(kind, kinds))
    return yaml_trees.build(kinds[kind], node, without=("kind",))


def _check_tables(recipe: Recipe) -> None:
    """Refuse names of cells, tables and values that the recipe does not have. Errors: `UsageError`."""
    patterns = {step.cell for step in recipe.steps}
    titles = {table.title for table in recipe.tables}
    for table in recipe.tables:
        for pattern in table.patterns():
            _known(pattern, patterns, table.place, "no step has the cells")
    asking: tuple[Claim | Check | Drawn, ...] = (*recipe.claims, *recipe.checks, *recipe.figures)
    for one in asking:
        if one.table:
            _known(one.table, titles, one.place, "no table has the title")
    for figure in recipe.figures:
        for pattern in figure.patterns():
            _known(pattern, patterns, figure.place, "no step has the cells")


def _known(name: str, known: set[str], place: str, problem: str) -> None:
    if name not in known:
        raise UsageError(place, f"{problem} {name}", did_you_mean(name, sorted(known)))


def find(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one in ./recipes, this repository or this installation.

    Errors: `UsageError`.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    folders = [
        Path("recipes"),
        Path(__file__).parents[3] / "recipes",
        Path(sysconfig.get_path("data")) / "share" / "headwater" / "recipes",
    ]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = {file.stem for folder in folders for file in folder.glob("*.yaml")}
    raise UsageError(f"RECIPE {name}", "no such recipe", did_you_mean(name, sorted(known), "name a YAML file"))
