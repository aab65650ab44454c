"""captures: keep a deployment's requests and answers, look at them, make a dataset of them."""

from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json

Name = Annotated[str, typer.Argument(metavar="DEPLOYMENT")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Keep requests and answers: on, off, list …")
    for name, command in (
        ("on", on),
        ("off", off),
        ("list", list_exchanges),
        ("save", save),
        ("clear", clear),
    ):
        group.command(name)(command)
    app.add_typer(group, name="captures")


def on(
    name: Name,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of its requests.")] = 1.0,
) -> None:
    """Keep what you ask of it, with the answers; other tenants' requests are never kept."""
    client().call("PATCH", _deployment(name), json={"capture": share})
    out.print(f"{share:.0%} of your requests to {name} are kept from now on.")


def off(name: Name) -> None:
    """Keep nothing more but what shadows are asked; what was kept stays (see clear)."""
    client().call("PATCH", _deployment(name), json={"capture": 0})


def list_exchanges(
    name: Name, limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: Json = False
) -> None:
    """The newest first."""
    path = f"{_deployment(name)}/exchanges"
    rows = client().call("GET", path, params={"limit": limit})["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("at", "by", "asked", "answer", "shadows")
    for row in rows:
        asked = row["asked"].get("prompt") or row["asked"]["messages"][-1]["content"]
        shadows = "\n".join(f"{ref}: {text}" for ref, text in row["shadows"].items())
        table.add_row(row["at"][:19], row["adapter"] or "base", asked, row["answer"], shadows)
    print_table(table)


def save(
    name: Name,
    dataset: Annotated[str, typer.Argument(help="Its name; a new one.")],
    answers_of: Annotated[
        str, typer.Option(help="base, or REPO/VERSION, also as a shadow; unset: whoever answered.")
    ] = "",
) -> None:
    """Make a dataset of what was kept."""
    body = {"name": dataset, "answers_of": answers_of}
    made = client().call("POST", f"{_deployment(name)}/exchanges/dataset", json=body)
    out.print(f"{made['name']}: {made['rows']} rows of {', '.join(made['columns'])}")


def clear(
    name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False
) -> None:
    """Forget all that was kept of it."""
    if not yes and not typer.confirm(f"Forget all that was kept of {name}?"):
        raise fail("Nothing was forgotten.")
    found = client().call("DELETE", f"{_deployment(name)}/exchanges")
    out.print(f"{found['forgotten']} exchanges are forgotten.")


def _deployment(name: str) -> str:
    return f"/api/v1/deployments/{quote(name, safe='')}"
