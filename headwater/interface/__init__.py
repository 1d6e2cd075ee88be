"""The Python interface: pairs and results as objects, and every command as a function of its options.

functions.py   commands as functions; objects in the place of paths become names
pairs.py       `load` and `Pairs`
result.py      `Result`: metrics, history, records and figures of a finished run
given.py       models and losses in memory, as names that stand where a path or a call does
"""

from __future__ import annotations

from headwater.interface.functions import FUNCTIONS, function, load_run
from headwater.interface.pairs import Pairs, load
from headwater.interface.result import Result, Table

__all__ = ["FUNCTIONS", "Pairs", "Result", "Table", "function", "load", "load_run"]
