"""dead-letters: requests that were given up because replicas died of them."""

from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Column, Table

from loraplex.cli.client import client, out, print_json, print_table
from loraplex.cli.deployments import Json

_PATH = "/api/v1/dead-letters"


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, help="Requests that were given up: replicas died of them."
    )
    group.command("list")(list_dead_letters)
    for command in (show, retry, drop):
        group.command()(command)
    app.add_typer(group, name="dead-letters")


def list_dead_letters(
    deployment: Annotated[str, typer.Option(help="Only those of this one.")] = "",
    as_json: Json = False,
) -> None:
    """List them, oldest first."""
    query = {"deployment": deployment} if deployment else {}
    rows = client().call("GET", _PATH, params=query)["data"]
    if as_json:
        print_json(rows)
        return
    whole = Column("request", no_wrap=True, min_width=36)  # what `show` and `retry` take
    table = Table(whole, "deployment", "at", "prompt tokens", "error")
    for letter in rows:
        facts = (letter["request"], letter["deployment"], letter["at"][:19])
        table.add_row(*facts, str(letter["prompt_tokens"]), letter["error"])
    print_table(table)


def show(request: str) -> None:
    """Show one, with its prompt."""
    letter = client().call("GET", f"{_PATH}/{quote(request, safe='')}")
    for name, value in letter.items():
        out.print(f"{name}: {value}")


def retry(request: str) -> None:
    """Run it once more."""
    again = client().call("POST", f"{_PATH}/{quote(request, safe='')}/retry")["request"]
    out.print(f"It runs as {again}. Its answer: GET /api/v1/requests/{again}/answer")


def drop(request: str) -> None:
    """Forget it."""
    client().call("DELETE", f"{_PATH}/{quote(request, safe='')}")
    out.print(f"{request} is dropped.")
