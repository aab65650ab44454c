"""The CLI's way to the API: where it is, with which key, and how errors are shown."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loraplex.embedded.record import PlatformRecord
from loraplex.settings import ClientSettings

# No markup: names and reasons come from outside, and may hold brackets.
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def print_table(table: Table) -> None:
    """As wide as it must be: what doesn't fit into the window is folded by it, not cut here."""
    needed = out.measure(table, options=out.options.update(width=10_000)).maximum
    Console(width=max(out.width, needed), highlight=False, markup=False).print(table)


def print_json(value: Any) -> None:
    """A line that programs read."""
    sys.stdout.write(json.dumps(value) + "\n")


def fail(message: str, code: int = 1) -> typer.Exit:
    err.print(Text.assemble(("error:", "red"), " ", message))
    return typer.Exit(code)


class Client:
    """Calls of the control API. An error answer becomes a message and exit code 1."""

    def __init__(self, url: str, api_key: str) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        timeout = httpx.Timeout(30, read=900)
        self.http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def call(self, method: str, path: str, *, may_be_gone: bool = False, **arguments: Any) -> Any:
        """`may_be_gone`: None instead of an error where there is no such thing."""
        with unreachable_is_an_error(str(self.http.base_url)):
            response = self.http.request(method, path, **arguments)
        if may_be_gone and response.status_code == 404:
            return None
        if response.is_error:
            raise fail(error_text(response))
        return response.json() if response.content else None

    def content(self, path: str, **arguments: Any) -> bytes:
        """A GET that is answered with something else than JSON."""
        with unreachable_is_an_error(str(self.http.base_url)):
            response = self.http.get(path, **arguments)
        if response.is_error:
            raise fail(error_text(response))
        return response.content

    def is_up(self) -> bool:
        try:
            return self.http.get("/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def unreachable_is_an_error(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as away:
        raise fail(f"{url} does not answer ({away}). Is it up? Try: loraplex up") from away


def error_text(response: httpx.Response) -> str:
    try:
        body = response.json()
        text = body.get("detail") or body["error"]["message"]
        return str(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {response.status_code}: {response.text[:300]}"


def deployment_path(name: str, rest: str = "") -> str:
    return f"/api/v1/deployments/{quote(name, safe='')}{rest}"


def client() -> Client:
    """By LORAPLEX_URL and LORAPLEX_API_KEY, else of the platform that runs in LORAPLEX_HOME."""
    settings = ClientSettings()
    if settings.url:
        return Client(settings.url, settings.api_key)
    record = PlatformRecord.load(settings.home.expanduser().absolute())
    if record is None:
        raise fail("No platform is running here. Start one: loraplex up  (or set LORAPLEX_URL)")
    return Client(record.url, settings.api_key or record.api_key)
