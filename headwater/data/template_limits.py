"""Limits on time and size for chat templates, which are untrusted programs that come with a tokenizer.

transformers renders templates in Jinja's sandbox, which protects Python objects but allows endless loops and growth.
Here every loop iteration, call, filter and operation has a cost proportional to what it handles, and a template that
exceeds its budget ends with an error: the same one on every machine, whatever its speed. An operation with a
potentially large result is charged before it is executed. Operations without a known cost are not available.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sized
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from headwater.errors import HeadwaterError, ModelError, first_line

BUDGET = 10_000_000
"""Cost that a rendering may reach: 1 for every character handled, `STEP` for every loop turn, call and filter."""
PER_CHARACTER = 100
"""Further cost allowed for every character of the conversation."""
STEP = 10
LONGEST_TEMPLATE = 1_000_000
LARGEST_NUMBER = 1_000_000
"""Largest argument of a filter (a width, a count), and most bits of a number."""
DEEPEST = 50
CONSTANT = {"length", "count", "first", "last", "default", "d", "safe", "attr", "int", "float", "abs", "round"}
"""Filters that read at most one item."""
SHALLOW = {"list", "map", "select", "reject", "selectattr", "rejectattr", "reverse", "items", "batch", "slice"}
"""Filters that pass over every item without reading into it."""
ATOMS = frozenset({int, float, bool, type(None), Undefined})
CONTAINERS = frozenset({dict, list, tuple})
SIZED = frozenset({str, dict, list, tuple})
"""The types of nearly all values, tested first."""
WITHOUT = ("urlize", "wordwrap", "pprint", "random", "xmlattr", "striptags", "forceescape", "filesizeformat", "sum")
"""Filters that are removed: no chat template needs them, and their cost does not follow from their arguments."""
FIX = "give another template, or use another model"


class OverBudgetError(Exception):
    """A template has spent its budget."""


class _Meter:
    """Counts the cost of one rendering against its budget."""

    def __init__(self) -> None:
        self.left = self.most = float(BUDGET)
        self._known: dict[int, tuple[Any, int]] = {}

    def start(self, inputs: list[Any]) -> None:
        """Begin a rendering of `inputs`."""
        self._known.clear()
        self.most = 1000 * BUDGET
        self.left = self.most = BUDGET + PER_CHARACTER * self.weight(inputs)

    def charge(self, cost: float) -> None:
        """Take `cost`. Errors: `OverBudgetError`."""
        self.left -= cost
        if self.left < 0:
            raise OverBudgetError("takes too long or grows too large")

    def weight(self, value: Any, depth: int = 0) -> int:
        """Return what a value takes to write out: a character 1, an item `STEP`, as often as it is referred to.

        Lists and mappings are looked at once: in this sandbox they never change. Errors: `OverBudgetError`.
        """
        kind = type(value)
        if kind is str:
            return len(value) + 1
        if kind in ATOMS:
            return 1
        if isinstance(value, str | bytes):
            return len(value) + 1
        if isinstance(value, Namespace):
            if depth:
                raise OverBudgetError("holds a namespace in another value")
            return self._sum(object.__getattribute__(value, "_Namespace__attrs"), 1)
        if kind not in CONTAINERS and not isinstance(value, Mapping | list | tuple | set | frozenset | MappingView):
            return 1
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        found = self._sum(value, depth + 1)
        if found > 1000:
            self._known[id(value)] = value, found  # with the value, whose id must not be another's
        return found

    def _sum(self, value: Any, depth: int) -> int:
        if depth > DEEPEST:
            raise OverBudgetError("holds values that are too deep")
        found = 1
        for item in itertools.chain(value, value.values()) if hasattr(value, "values") else value:
            found += STEP + self.weight(item, depth)
            if found > self.most:
                raise OverBudgetError("holds too many values")
        return found


def _size(value: Any) -> int:
    """Return the length of a value that has one."""
    if type(value) in SIZED:
        return len(value)
    return len(value) if isinstance(value, Sized) and not isinstance(value, Undefined) else 1


def _growth(name: str, value: Any, arguments: Iterable[Any]) -> float:
    """Return the size that a method or filter of strings can give, beyond what it is given.

    Errors: `OverBudgetError` for a number that is out of range.
    """
    arguments = list(arguments)
    for each in arguments:
        if isinstance(each, int | float) and not abs(each) <= LARGEST_NUMBER:
            raise OverBudgetError(f"asks {name} for a number that is too large")
    texts = [each for each in arguments if isinstance(each, str)]
    numbers = sum(int(each) for each in arguments if isinstance(each, int) and each > 0)
    longest = max((len(text) for text in texts), default=0)
    if name == "join":
        separator = value if isinstance(value, str) and arguments and not isinstance(arguments[0], str) else None
        items = arguments[0] if separator is not None else value
        count = len(items) if isinstance(items, Sized) else 0
        return float(count * (len(separator) if separator is not None else longest))
    if not isinstance(value, str):
        # tojson of a structure writes its indentation before every item, as deep as it lies.
        return float(numbers * DEEPEST) if name == "tojson" else float(numbers)
    if name == "replace" and len(texts) > 1:
        return float((value.count(texts[0]) if texts[0] else len(value) + 1) * len(texts[1]))
    if name in ("indent", "expandtabs", "tojson"):
        return float((value.count("\n") + value.count("\t") + 1) * (numbers + longest + 8))
    if name in ("format", "%"):
        _check_format(value)
    return float(numbers)


def _check_format(text: str) -> None:
    """Refuse widths that are large, or given by an argument."""
    if re.search(r"\d{6}|%[-+ #0]*\d*\.?\*", text) or re.search(r"\{[^{}]*:[^{}]*\{", text):
        raise OverBudgetError("formats with a width that is too large")


class _Priced(NodeTransformer):
    """Puts a price on what Jinja compiles to plain Python: loops, concatenation, and lists and mappings written out."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - as jinja2 calls it
        self.generic_visit(node)
        _tick(node)
        if node.test is not None:
            node.test = nodes.And(_filter(nodes.Const(STEP), "_tick", node.lineno), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        self.generic_visit(node)
        _tick(node)
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802
        self.generic_visit(node)
        _tick(node)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_compared", node.lineno)
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_compared", node.lineno)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "_sliced", node.lineno) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_concat", node.lineno)

    def _weighed(self, node: Any) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(node, "_weighed", node.lineno) if getattr(node, "ctx", "load") == "load" else node

    visit_List = _weighed  # noqa: N815
    visit_Tuple = _weighed  # noqa: N815
    visit_Dict = _weighed  # noqa: N815


def _tick(node: Any) -> None:
    """Charge every run of a body for its text and its expressions."""
    text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    cost = STEP + STEP * sum(1 for _ in node.find_all(nodes.Expr)) + text
    node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(cost), "_tick", node.lineno), lineno=node.lineno))


def _filter(node: nodes.Expr, name: str, line: int) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=line)


class _Limited(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a meter."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def limit(self) -> None:
        """Put the meter into what the environment offers."""
        self.meter = _Meter()
        self.template_class = _LimitedTemplate
        self.finalize = self._written
        self.optimized = False  # constants would be computed before there is a budget
        self.concat = self._joined  # type: ignore[method-assign]
        for name in WITHOUT:
            self.filters.pop(name, None)
        self.filters = {name: self._priced(name, filter) for name, filter in self.filters.items()}
        self.filters |= {"_tick": self._tick, "_concat": self._concat, "_weighed": self._made}
        self.filters |= {"_compared": self._compared, "_sliced": self._sliced}
        self.globals.pop("lipsum", None)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        found = super()._parse(source, name, filename)
        _Priced().visit(found)
        return found

    def call(__self, __context: Context, __obj: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805 - as jinja2's
        meter = __self.meter
        meter.charge(STEP)
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int | float):
            if name in ("translate", "format_map", "maketrans"):
                raise OverBudgetError(f"calls {name}, which is not offered")
            given = [*arguments, *named.values()]
            meter.charge(_size(owner) + sum(map(meter.weight, given)) + _growth(name, owner, given))
        found = super().call(__context, __obj, *arguments, **named)
        return __self._made(found)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is str and type(right) is str:
            self.meter.charge(STEP + len(left) + len(right))
            return left + right
        for number, other in ((left, right), (right, left)):
            if operator == "*" and isinstance(number, int) and isinstance(other, str | bytes | list | tuple):
                self.meter.charge(_size(other) * max(number, 0))
            elif isinstance(number, int) and isinstance(other, int):
                bits = number.bit_length() * (abs(other) if operator == "**" else 1)
                if bits > 10_000:
                    raise OverBudgetError("computes with numbers that are too large")
        if operator == "%" and isinstance(left, str):
            self.meter.charge(_growth("%", left, right if isinstance(right, tuple) else (right,)))
        if operator == "%":
            self.meter.charge(self.meter.weight(right))
        elif operator == "+":
            self.meter.charge(_size(left) + _size(right))
        self.meter.charge(STEP)
        return self._made(super().call_binop(context, operator, left, right))

    def _priced(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that is paid for by what it is given and what it gives."""
        skipped = 1 if hasattr(filter, "jinja_pass_arg") else 0

        @functools.wraps(filter)
        def priced(*arguments: Any, **named: Any) -> Any:
            given = [*arguments[skipped:], *named.values()]
            self.meter.charge(STEP)
            if len(given) == 1 and type(given[0]) is str:  # trim, lower, length, …: nothing that grows
                self.meter.charge(len(given[0]))
                return self._made(filter(*arguments, **named))
            if name in SHALLOW:
                self.meter.charge(STEP * _size(given[0]))
            elif name not in CONSTANT:
                self.meter.charge(sum(map(self.meter.weight, given)))
            self.meter.charge(_growth(name, given[0] if given else None, given[1:]))
            return self._made(filter(*arguments, **named))

        return priced

    def _tick(self, cost: int) -> bool:
        self.meter.charge(cost)
        return True

    def _concat(self, parts: list[Any]) -> str:
        return self._joined([str(self._written(part)) for part in parts])

    def _made(self, value: Any) -> Any:
        """Pay for a new value, which must not be too large to write out."""
        if type(value) is str:
            self.meter.charge(len(value))
            return value
        self.meter.charge(_size(value))
        self.meter.weight(value)
        return value

    def _compared(self, value: Any) -> Any:
        if type(value) is not int:
            self.meter.charge(self.meter.weight(value))
        return value

    def _sliced(self, value: Any) -> Any:
        self.meter.charge(_size(value))
        return value

    def _written(self, value: Any) -> Any:
        """Pay for a value that is written out."""
        self.meter.charge(self.meter.weight(value))
        return value

    def _joined(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        self.meter.charge(sum(map(len, parts)))
        return "".join(parts)


class _LimitedTemplate(Template):
    """A template whose every rendering has a budget of its own."""

    environment: _Limited

    def render(self, *arguments: Any, **named: Any) -> str:
        """Render. Errors: `ModelError` beyond the budget or the sandbox; `TemplateError` for all other trouble."""
        with self._budget(arguments, named):
            return super().render(*arguments, **named)

    def generate(self, *arguments: Any, **named: Any) -> Iterator[str]:
        """Render piece by piece. Errors: those of `render`."""
        with self._budget(arguments, named):
            yield from super().generate(*arguments, **named)

    @contextlib.contextmanager
    def _budget(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[None]:
        try:
            self.environment.meter.start([*arguments, *(named.get(name) for name in _TEXTS)])
            yield
        except (OverBudgetError, SecurityError, OverflowError, MemoryError, RecursionError) as error:
            raise ModelError("chat template", f"is stopped: {first_line(error)}", FIX) from error
        except (HeadwaterError, TemplateError):
            raise
        except Exception as error:
            raise TemplateError(f"{type(error).__name__}: {first_line(error)}") from error


_TEXTS = ("messages", "tools", "documents")


def limited(template: str, plain: Environment) -> Template:
    """Compile `template` like those of the environment `plain`, within limits. Errors: `ModelError`."""
    if len(template) > LONGEST_TEMPLATE:
        raise ModelError(
            "chat template", f"has {len(template):,} characters", f"expected {LONGEST_TEMPLATE:,} or fewer"
        )
    extensions = [type(extension) for extension in plain.extensions.values()]
    environment = _Limited(trim_blocks=plain.trim_blocks, lstrip_blocks=plain.lstrip_blocks, extensions=extensions)
    environment.filters.update(plain.filters)
    environment.globals.update(plain.globals)
    environment.limit()
    try:
        return environment.from_string(template)
    except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError, OverBudgetError) as error:
        line = getattr(error, "lineno", None)
        place = f"chat template, line {line}" if line else "chat template"
        raise ModelError(place, f"cannot be compiled: {first_line(error)}", FIX) from error


def check_templates(templates: str | Mapping[str, str] | None) -> None:
    """Compile the chat templates of a tokenizer, so that one that cannot be is refused early. Errors: `ModelError`."""
    from transformers.utils import chat_template_utils as library

    install()
    for template in templates.values() if isinstance(templates, Mapping) else [templates] if templates else []:
        library._compile_jinja_template(template)


def install() -> None:
    """Let transformers render every chat template of this process within limits."""
    from transformers.utils import chat_template_utils as library

    compile_plain = library._cached_compile_jinja_template
    if getattr(compile_plain, "limited", False):
        return

    def compile_limited(template: str) -> Template:
        return limited(template, compile_plain("").environment)

    compile_limited.limited = True  # type: ignore[attr-defined]
    library._cached_compile_jinja_template = compile_limited
    library._compile_jinja_template.cache_clear()
