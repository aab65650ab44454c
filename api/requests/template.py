"""Chat templates: Jinja in a sandbox, with what transformers offers them.

Templates come with models, so they are untrusted: jinja2's immutable sandbox, no access to files, a
time limit that each turn of a loop and each call of a macro looks at, and bounds on what a single
expression may make.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

TIME_LIMIT_S = 2.0
_LONGEST_RANGE = 10_000
_LARGEST = 2**20  # items or characters of a repeated value, bits of a power
_UNTIL = "__until"  # in the template's context: when its time is over (monotonic)


class TemplateRefused(Exception):
    """The template can't render these messages (a role that it doesn't know, say)."""


class TemplateTooSlow(TemplateRefused):
    """Its time was over."""


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Watched(NodeTransformer):
    """Looks at the clock wherever a template can go on for ever."""

    def visit_For(self, node: nodes.For) -> Node:
        return self._watch(node)

    def visit_Macro(self, node: nodes.Macro) -> Node:
        return self._watch(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> Node:
        return self._watch(node)

    def _watch(self, node: Any) -> Node:
        self.generic_visit(node)
        look = nodes.Filter(nodes.Const(None), "look_at_the_clock", [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(look, lineno=node.lineno))
        return node  # type: ignore[no-any-return]


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Watched().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(many, "__len__"):
                    _bound(len(many) * times)
        elif isinstance(left, int) and isinstance(right, int):
            _bound(left.bit_length() * right)
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.filters["tojson"] = _to_json
        environment.filters["look_at_the_clock"] = _look_at_the_clock
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        environment.globals["range"] = _range
        self.source = source
        self._template = environment.from_string(source)
        self._tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        more: Mapping[str, Any] | None = None,
        *,
        limit_s: float = TIME_LIMIT_S,
    ) -> str:
        """The prompt, ending where the assistant's answer begins. Raises TemplateRefused.

        `more`: what else the template may know, such as `tools`.
        """
        known = (
            {**(more or {})} | self._tokens | {"messages": messages, "add_generation_prompt": True}
        )
        try:
            return self._template.render(known | {_UNTIL: time.monotonic() + limit_s})
        except TemplateTooSlow:
            raise
        except Exception as error:  # a template is a program: it may fail in any way
            raise TemplateRefused(str(error) or type(error).__name__) from error


@pass_context
def _look_at_the_clock(context: Context, _: None) -> None:
    if time.monotonic() > context[_UNTIL]:
        raise TemplateTooSlow("it takes too long")


def _range(*bounds: int) -> range:
    found = range(*bounds)
    _bound(len(found), _LONGEST_RANGE)
    return found


def _bound(size: int, most: int = _LARGEST) -> None:
    if size > most:
        raise TemplateError("it makes something too large")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
