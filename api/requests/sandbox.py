"""Jinja for templates of strangers: what they can reach, how long they run, how much they make.

jinja2's immutable sandbox keeps them from everything outside. Beyond that, each turn of a loop and
each call of a macro looks at the clock, only filters that chat templates use are there, and what
could make something large out of little is bounded.
"""

import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.nodes import Node
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

_LARGEST = 2**22  # characters or items of a value, bits of a number
_LONGEST_RANGE = 10_000
_FILTERS = (
    *("abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first"),
    *("float", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min"),
    *("reject", "rejectattr", "reverse", "round", "safe", "select", "selectattr", "sort", "string"),
    *("sum", "title", "trim", "unique", "upper", "wordcount"),
)
_PADDING = ("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map")

_until: ContextVar[float] = ContextVar("until")  # when its time is over (monotonic)


class TooSlow(Exception):
    """Its time was over."""


class _Watched(NodeTransformer):
    """Looks at the clock wherever a template can go on for ever, and bounds `~`."""

    def visit_For(self, node: nodes.For) -> Node:
        if node.test is not None:
            node.test = nodes.And(_look(), node.test)
        return self._watch(node)

    def visit_Macro(self, node: nodes.Macro) -> Node:
        return self._watch(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> Node:
        return self._watch(node)

    def visit_Concat(self, node: nodes.Concat) -> Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes)
        return nodes.Filter(parts, "concatenated", [], [], None, None)

    def _watch(self, node: Any) -> Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_look(), lineno=node.lineno))
        return node  # type: ignore[no-any-return]


def _look() -> nodes.Expr:
    return nodes.Filter(nodes.Const(None), "look_at_the_clock", [], [], None, None)


def _bounded_concat(parts: Iterable[str]) -> str:
    texts = list(parts)
    _bound(sum(map(len, texts)))
    return "".join(texts)


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})
    concat = staticmethod(_bounded_concat)  # of macros, blocks and all

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {n: each for n, each in self.filters.items() if n in _FILTERS}
        self.filters |= {"concatenated": _concatenated, "join": _join, "replace": _replace}
        self.filters["indent"] = _indent
        self.globals = {"range": _range, "namespace": self.globals["namespace"], "dict": dict}
        self.filters["look_at_the_clock"] = _look_at_the_clock

    def render_within(self, template: Any, known: dict[str, Any], limit_s: float) -> str:
        """Raises TooSlow, and whatever a template may raise."""
        token = _until.set(time.monotonic() + limit_s)
        try:
            found: str = template.render(known)
            return found
        finally:
            _until.reset(token)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Watched().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]

    def wrap_str_format(self, value: Any) -> None:
        """`format` pads."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _PADDING:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        text = getattr(obj, "__self__", None)
        if isinstance(text, str) and obj.__name__ == "replace" and len(args) > 1:
            return _replace(text, *args)
        if isinstance(text, str) and obj.__name__ == "join" and len(args) == 1:
            return _join(args[0], text)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(each) if hasattr(each, "__len__") else None for each in (left, right)]
        if operator == "%" and sizes[0] is not None:
            raise TemplateError("a text can't be formatted here")
        if operator == "+" and None not in sizes:
            _bound(sum(size or 0 for size in sizes))
        if operator in ("*", "**"):
            _bound(_product(operator, left, right))
        return super().call_binop(context, operator, left, right)


@pass_context  # else it would be computed once, as a constant
def _look_at_the_clock(_context: Context, _: None) -> bool:
    if time.monotonic() > _until.get():
        raise TooSlow("it takes too long")
    return True


def _product(operator: str, left: Any, right: Any) -> int:
    for many, times in ((left, right), (right, left)):
        if isinstance(times, int) and hasattr(many, "__len__"):
            return len(many) * max(0, times)
    if not (isinstance(left, int) and isinstance(right, int)):
        return 0
    if operator == "**":
        return left.bit_length() * max(0, right)
    return left.bit_length() + right.bit_length()


def _range(*bounds: int) -> range:
    found = range(*bounds)
    _bound(len(found), _LONGEST_RANGE)
    return found


def _concatenated(parts: Iterable[Any]) -> str:
    return _bounded_concat(map(str, parts))


def _join(parts: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        raise TemplateError("join has no attribute here; use map")
    texts = [str(part) for part in parts]
    _bound(sum(map(len, texts)) + len(str(between)) * len(texts))
    return str(between).join(texts)


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    _bound(len(text) + (text.count(old)) * len(new))
    replaced: str = text.replace(old, new, -1 if count is None else count)
    return replaced


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    lines = str(text).splitlines(keepends=True)
    _bound(len(text) + len(lines) * max(0, width))
    space = " " * max(0, width)
    return "".join(
        line if (number == 0 and not first) or not (blank or line.strip()) else space + line
        for number, line in enumerate(lines)
    )


def _bound(size: int, most: int = _LARGEST) -> None:
    if size > most:
        raise TemplateError("it makes something too large")
