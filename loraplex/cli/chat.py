"""chat: talk to a deployment or an adapter, the answer streamed."""

import json
import math
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from loraplex.cli.client import Client, client, error_text, fail, out, unreachable_is_an_error


def register(app: typer.Typer) -> None:
    app.command()(chat)


def chat(
    model: Annotated[str, typer.Argument(help="Deployment, or repo/version of an adapter.")],
    prompt: Annotated[str | None, typer.Argument(help="One question; without it: a talk.")] = None,
    adapter: Annotated[str, typer.Option("--adapter", "-a", help="repo/version")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="At most this many new tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
) -> None:
    """Ask a question, or talk until Ctrl-D."""
    if not math.isfinite(temperature):
        raise fail(f"--temperature {temperature} is no number here.", 2)
    if prompt is not None and not prompt.isascii():
        _check(prompt)
    connection = client()
    target = f"{model}:{adapter}" if adapter else model
    messages: list[dict[str, str]] = []
    while True:
        question = prompt or _read()
        if question is None:
            return
        messages.append({"role": "user", "content": question})
        answer = []
        for text in stream_chat(
            connection, target, messages, max_tokens=max_tokens, temperature=temperature
        ):
            answer.append(text)
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        if prompt is not None:
            return
        messages.append({"role": "assistant", "content": "".join(answer)})


def _check(text: str) -> None:
    """Raises Exit for bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise fail("The question is not UTF-8.", 2) from broken


def stream_chat(
    connection: Client, model: str, messages: list[dict[str, str]], **parameters: Any
) -> Iterator[str]:
    """Pieces of the answer as they come."""
    body = {"model": model, "messages": messages, "stream": True}
    body |= {name: value for name, value in parameters.items() if value is not None}
    url = "/v1/chat/completions"
    with (
        unreachable_is_an_error(str(connection.http.base_url)),
        connection.http.stream("POST", url, json=body) as response,
    ):
        if response.is_error:
            response.read()
            raise fail(error_text(response))
        for line in response.iter_lines():
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if not data or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise fail(chunk["error"]["message"])
            for choice in chunk["choices"]:
                yield choice["delta"].get("content") or ""


def _read() -> str | None:
    try:
        return input("> ") or _read()
    except (EOFError, KeyboardInterrupt):
        out.print()
        return None
