"""datasets: list, add, download, rm."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True, help="Training data: list, add, rm …")
    group.callback()(list_datasets)
    group.command("add")(add)
    group.command("download")(download)
    group.command("rm")(remove)
    app.add_typer(group, name="datasets")


def list_datasets(context: typer.Context, as_json: Json = False) -> None:
    """List datasets; see the commands for more."""
    if context.invoked_subcommand:
        return
    rows = client().call("GET", "/api/v1/datasets")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("dataset", "rows", "columns", "file")
    for row in rows:
        table.add_row(row["name"], str(row["rows"]), ", ".join(row["columns"]), row["file_id"])
    print_table(table)


def add(
    file: Annotated[Path, typer.Argument(help="JSON lines, or CSV.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="Unset: the file's, without its ending.")] = "",
) -> None:
    """Check a file of training data and keep it. Rows: prompt and completion, or messages, or
    text."""
    with file.open("rb") as opened:
        row = client().call(
            "POST",
            "/api/v1/datasets",
            data={"name": name or file.stem},
            files={"file": (file.name, opened)},
        )
    out.print(f"{row['name']}: {row['rows']} rows of {', '.join(row['columns'])}")


def download(name: str, file: Annotated[Path, typer.Argument(help="A new one.")]) -> None:
    """Get a dataset's file."""
    if file.exists():
        raise fail(f"{file} exists already.")
    file.write_bytes(client().content(f"{_path(name)}/content"))


def remove(name: str) -> None:
    """Delete a dataset with its file."""
    client().call("DELETE", _path(name))
    out.print(f"{name} is deleted.")


def _path(name: str) -> str:
    return f"/api/v1/datasets/{quote(name, safe='')}"
