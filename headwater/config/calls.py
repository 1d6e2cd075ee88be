"""Constructor calls and numbers in texts: `dpo(beta=0.1)` to a value, without evaluating anything."""

from __future__ import annotations

import ast
import inspect
import math
import re
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeVar, cast

from headwater.errors import UsageError, did_you_mean
from headwater.marks import visible

T = TypeVar("T")

LONGEST = 10_000
"""Characters of a call; longer ones are refused unread."""
LONGEST_SHOWN = 60
_NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)
_RATIO = re.compile(r"[+-]?\d{1,40}/\d{1,40}", re.ASCII)


def fraction(text: str) -> Fraction:
    """Return a number exactly: `0.1` is a tenth. Errors: ValueError, also for one of absurd size (`1e99999999`)."""
    text = text.strip()
    if not (_NUMBER.fullmatch(text) or _RATIO.fullmatch(text)):
        raise ValueError("is not a number, or one of more than 40 digits")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError("divides by zero") from error


def build(
    text: str, table: Mapping[str, Callable[..., T]], what: str, elsewhere: Mapping[str, str] = MappingProxyType({})
) -> T:
    """Build the component that a constructor call names: `build("dpo(beta=0.1)", LOSSES, "loss")`.

    Only literals are accepted as keyword arguments; nothing is evaluated. `elsewhere` says for names that other
    libraries use what to write here. Errors: `UsageError`.
    """
    name, arguments = read_call(text, what)
    if name not in table:
        raise UsageError(f"unknown {what} {shown(name)}", elsewhere.get(name) or did_you_mean(name, table))
    maker = table[name]
    parameters = inspect.signature(maker).parameters
    hints = typing.get_type_hints(maker)
    for key, value in arguments.items():
        if key not in parameters:
            raise UsageError(f"{what} {name}", f"has no setting {shown(key)}", did_you_mean(key, parameters))
        problem = _problem(key, value, hints.get(key, object))
        if problem:
            raise UsageError(f"{what} {name}", f"{key}={shown(repr(value))}", problem)
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise UsageError(f"{what} {name}", f"needs {missing[0]}", f"write {name}({missing[0]}=…)")
    return maker(**arguments)


def _problem(key: str, value: object, expected: Any) -> str:
    """Return what is expected instead of `value`; nothing where it fits."""
    if not _fits(value, expected):
        return f"expected {getattr(expected, '__name__', expected)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "expected a number of 64 bits"
    if key == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
        return "expected 0 to 4294967295"
    return ""


def _fits(value: object, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(expected, types.UnionType) or typing.get_origin(expected) is typing.Union:
        return any(_fits(value, one) for one in typing.get_args(expected))
    return isinstance(value, expected) if isinstance(expected, type) else True


def read_call(text: str, what: str) -> tuple[str, dict[str, Any]]:
    """Read `name` or `name(key=literal, …)` into the name and its arguments. Errors: `UsageError`."""
    example = f'write it as name or name(key=value), such as "{what}(size=1)"'
    place = f"{what} {shown(repr(text))}"
    node = _parsed(text, place, example)
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UsageError(place, "is not a constructor call", example)
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise UsageError(place, "has a setting without a name", example)
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        name = str(keyword.arg)
        if name in arguments:
            raise UsageError(place, f"gives {shown(name)} twice", "leave one out")
        try:
            arguments[name] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise UsageError(place, "has a value that is not a literal", example) from error
    return node.func.id, arguments


def read_sum(text: str, what: str) -> list[tuple[str, float]]:
    """Read `mix(a()*0.8 + b())` into calls with their weights, 1 where none is given. Errors: `UsageError`."""
    example = "write it as mix(one()*0.8 + other()*0.2)"
    place = f"{what} {shown(repr(text))}"
    node = _parsed(text, place, example)
    if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords:
        raise UsageError(place, "is not one sum", example)
    terms, rest = [], node.args[0]
    while isinstance(rest, ast.BinOp) and isinstance(rest.op, ast.Add):
        terms.append(rest.right)
        rest = rest.left
    return [_weighted(term, place, example) for term in (rest, *reversed(terms))]


def _weighted(term: ast.expr, place: str, example: str) -> tuple[str, float]:
    call, weight = term, 1.0
    if isinstance(term, ast.BinOp) and isinstance(term.op, ast.Mult):
        call, number = (term.left, term.right) if isinstance(term.right, ast.Constant) else (term.right, term.left)
        value = number.value if isinstance(number, ast.Constant) else None
        if not _fits(value, float):
            raise UsageError(place, "has a weight that is not a number", example)
        weight = float(cast("float", value))
    if not isinstance(call, ast.Call | ast.Name):
        raise UsageError(place, f"has {shown(ast.unparse(call))}, which is not a call", example)
    return ast.unparse(call), weight


def _parsed(text: str, place: str, example: str) -> ast.expr:
    """Parse an expression without evaluating anything. Errors: `UsageError`."""
    if len(text) > LONGEST:
        raise UsageError(place, f"has {len(text):,} characters", f"expected {LONGEST:,} or fewer")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of spellings such as 1is
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(place, "is not a constructor call", example) from error


def shown(text: str) -> str:
    """Return a text from elsewhere as a message can hold it: in one line, and not long."""
    found = visible(text[: LONGEST_SHOWN + 1])
    return found if len(found) <= LONGEST_SHOWN else f"{found[:LONGEST_SHOWN]}…"
