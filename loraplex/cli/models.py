"""models: base models on the platform's disk: list, import, rm. For who runs the platform."""

from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.adapters import wait_for_import
from loraplex.cli.client import client, out, print_json, print_table
from loraplex.cli.deployments import Json

_PATH = "/api/v1/base-models"


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True, help="Base models on the platform's disk.")
    group.callback()(list_models)
    group.command("import")(import_)
    group.command("rm")(remove)
    app.add_typer(group, name="models")


def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List them; those of the hub come when a deployment names them."""
    if context.invoked_subcommand:
        return
    rows = client().call("GET", _PATH)["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("model", "size", "last used", "deployments")
    for row in rows:
        size = f"{row['size_bytes'] / 2**20:.0f} MiB"
        table.add_row(row["name"], size, row["used_at"][:19], ", ".join(row["deployments"]))
    print_table(table)


def import_(
    source: Annotated[
        str, typer.Argument(help="s3://BUCKET/FOLDER, a folder of the server; or an archive.")
    ],
    name: Annotated[str, typer.Option(help="As deployments are to name it: ORG/MODEL.")],
) -> None:
    """Have the server fetch one, and wait for it. Ctrl-C cancels."""
    api = client()
    row = api.call("POST", _PATH, json={"name": name, "source": source})
    out.print(wait_for_import(api, row)["adapter"])


def remove(name: str) -> None:
    """Remove one that no deployment names."""
    client().call("DELETE", f"{_PATH}/{quote(name)}")
    out.print(f"{name} is removed.")
