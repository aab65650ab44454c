"""Chat templates: Jinja in a sandbox, with what transformers offers them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser

from api.requests.sandbox import Sandbox, TooSlow

TIME_LIMIT_S = 2.0
_DEEPEST_INDENT = 16


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


class ChatTemplate:
    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._sandbox = sandbox = Sandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        sandbox.filters["tojson"] = _to_json
        sandbox.globals["raise_exception"] = _refuse
        sandbox.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.source = source
        self._template = sandbox.from_string(source)
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
        known = {**(more or {})} | self._tokens | {"messages": messages}
        known["add_generation_prompt"] = True
        try:
            return self._sandbox.render_within(self._template, known, limit_s)
        except TooSlow as slow:
            raise TemplateTooSlow(str(slow)) from slow
        except Exception as error:  # a template is a program: it may fail in any way
            raise TemplateRefused(str(error) or type(error).__name__) from error


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    if indent is not None and indent > _DEEPEST_INDENT:
        raise TemplateError(f"tojson: at most {_DEEPEST_INDENT} spaces")
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
