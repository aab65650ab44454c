"""adapters: list them, add one."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loraplex.cli.client import client, out, print_table
from loraplex.cli.demo import register_adapter
from loraplex.cli.deployments import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True, help="List adapters, or add one.")
    group.callback()(list_adapters)
    group.command("add")(add)
    app.add_typer(group, name="adapters")


def list_adapters(context: typer.Context, as_json: Json = False) -> None:
    """List adapters, or add one."""
    if context.invoked_subcommand:
        return
    rows = client().call("GET", "/api/v1/adapters")["data"]
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = Table("adapter", "base model", "rank", "targets", "size", "digest")
    for a in rows:
        size = f"{a['size_bytes'] / 2**20:.1f} MiB"
        targets = ", ".join(a["targets"])
        table.add_row(a["ref"], a["base_model"], str(a["rank"]), targets, size, a["digest"][:12])
    print_table(table)


def add(
    repo: str,
    folder: Annotated[Path, typer.Argument(help="PEFT's config and safetensors lie there.")],
    base_model: Annotated[str, typer.Option(help="Instead of the one in the config.")] = "",
) -> None:
    """Register a PEFT LoRA folder as the next version of a repo."""
    out.print(register_adapter(client(), repo, folder, base_model))
