"""The types of the Python interface, headwater/__init__.pyi, for editors and type checkers.

`python -m tests.support.stub` writes it anew.
"""

from __future__ import annotations

import inspect
import re

import headwater
from headwater import interface
from headwater.data.reading import memory
from tests.support.tree import ROOT

STUB = ROOT / "headwater" / "__init__.pyi"
HEADER = '''"""Types of the Python interface; written by `python -m tests.support.stub`."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from headwater import losses as losses
from headwater.data.reading.memory import Rows
from headwater.interface import Pairs as Pairs
from headwater.interface import Result as Result
from headwater.interface import Table as Table
from headwater.results.inspection import Inspection

__version__: str

def load(data: str | PathLike[str] | Rows, **options: Any) -> Pairs: ...
def load_run(path: str | PathLike[str]) -> Result: ...
'''
ROWS = str(memory.Rows)
"""How a signature spells the type of data in memory."""
RETURNED = {"download_models": "Path", "inspect": "Inspection", "lens": "Result | None", "report": "Path"}
"""What functions return that do not return a result."""
SEVERAL = dict.fromkeys(("judge", "compare"), "str | PathLike[str] | Rows") | {"report": "str | PathLike[str]"}
"""Functions whose first option takes many values, which may be several arguments."""


def of_the_code() -> str:
    """Return the text of the stub."""
    return HEADER + "".join(_definition(name) for name in interface.FUNCTIONS)


def _definition(name: str) -> str:
    """Return the definition of a function, a parameter a line."""
    parameters = list(inspect.signature(getattr(headwater, name)).parameters.values())
    lines = [f"def {name}("]
    for place, parameter in enumerate(parameters):
        if (
            parameter.kind is parameter.KEYWORD_ONLY
            and name not in SEVERAL
            and (place == 0 or parameters[place - 1].kind != parameter.kind)
        ):
            lines.append("    *,")
        text = str(parameter).replace(ROWS, "Rows")
        text = re.sub(r"\b(pathlib|os|typing|collections\.abc)\.", "", text).replace("'", '"')
        text = re.sub(r"Optional\[(Literal\[[^\]]*\])\]", r"\1 | None", text)
        text = re.sub(r"PosixPath\(.*\)", "...", text)
        lines.append(f"    {text},")
        if place == 0 and name in SEVERAL:
            lines.append(f"    *more: {SEVERAL[name]},")
    return "\n".join([*lines, f") -> {RETURNED.get(name, 'Result')}: ...\n"])


if __name__ == "__main__":
    STUB.write_text(of_the_code(), encoding="utf-8")
