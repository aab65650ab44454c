"""`python -m docs.generate.api > docs/api.md`: each route; the whole of it is at /docs."""

import sys
from itertools import groupby
from typing import Any

from api.app import build
from loraplex.settings import ApiSettings

_HEAD = """# HTTP API

Generated: `python -m docs.generate.api > docs/api.md`. Fields and answers: `/docs` of a running
platform, or its `/openapi.json`. Keys go with `Authorization: Bearer …`; errors are OpenAI's shape
below `/v1`, problem+json (RFC 9457) below `/api/v1`.
"""
_MOST = 160  # characters of a description


def page() -> str:
    schema = build(ApiSettings()).openapi()
    lines = [_HEAD]
    routes = sorted(_routes(schema), key=lambda row: (_group(row[1]), row[1], row[0]))
    for group, rows in groupby(routes, key=lambda row: _group(row[1])):
        lines += [f"## {group}", "", "| route | what it does |", "|---|---|"]
        lines += [f"| `{method} {path}` | {text} |" for method, path, text in rows]
        lines.append("")
    return "\n".join(lines)


def _routes(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (method.upper(), path, _first_sentence(operation))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]


def _group(path: str) -> str:
    for prefix, name in (
        ("/api/v1", "Control"),
        ("/v1", "OpenAI"),
        ("/deployments", "LoRAX, and OpenAI below a deployment"),
    ):
        if path.startswith(prefix):
            return name
    return "Predibase and others"


def _first_sentence(operation: dict[str, Any]) -> str:
    text = " ".join((operation.get("description") or operation["summary"]).split())
    text = text.partition(". ")[0].rstrip(".")
    return (text[:_MOST] + " …" if len(text) > _MOST else text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
