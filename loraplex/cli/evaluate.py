"""evaluate: ask a base model and adapters of it the same questions, and score their answers."""

import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.progress import Progress
from rich.table import Table

from loraplex.cli.client import Client, client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json
from loraplex.cli.finetune import send_rows

_PATH = "/api/v1/evaluations"


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)
    app.command("evaluations")(list_evaluations)


def evaluate(
    data: Annotated[str, typer.Argument(help="A file (JSON lines, CSV), or a dataset's name.")],
    deployment: Annotated[str, typer.Option(help="That answers.")],
    variant: Annotated[
        list[str], typer.Option(help="base, REPO/VERSION or REPO@ALIAS; again for each.")
    ],
    schema: Annotated[
        Path | None, typer.Option(help="A JSON schema that answers should keep to.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="The first ones; unset: all.")] = None,
    max_tokens: int = 256,
    as_chat: Annotated[bool, typer.Option(help="Prompts are said by the user.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="A file for all answers, side by side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare variants by their answers. Ctrl-C cancels."""
    if output is not None and not output.absolute().parent.is_dir():
        raise fail(f"{output}: there is no such folder.")
    api = client()
    body: dict[str, Any] = {
        "deployment": deployment,
        "dataset": send_rows(api, data),
        "variants": variant,
        "rows": rows,
        "max_tokens": max_tokens,
        "as_chat": as_chat,
    }
    if schema is not None:
        body["json_schema"] = _schema(schema)
    found = _wait(api, api.call("POST", _PATH, json=body))
    if found["status"] == "failed":
        raise fail(f"{found['id']}: {found['error']}")
    if output is not None:
        output.write_bytes(api.content(f"/v1/files/{found['results_file_id']}/content"))
    if as_json:
        print_json(found)
        return
    _print_scores(found)


def list_evaluations(as_json: Json = False) -> None:
    """Evaluations, the newest first."""
    rows = client().call("GET", _PATH)["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "deployment", "dataset", "variants", "rows", "status")
    for row in rows:
        facts = (row["dataset"], ", ".join(row["variants"]), str(row["rows"]), row["status"])
        table.add_row(row["id"], row["deployment"], *facts)
    print_table(table)


def _wait(api: Client, row: dict[str, Any]) -> dict[str, Any]:
    path = f"{_PATH}/{quote(row['id'], safe='')}"
    try:
        with Progress(transient=True, console=out) as bars:
            bar = bars.add_task(row["id"], total=row["answers"])
            while row["status"] in ("running", "scoring"):
                bars.update(bar, completed=row["answered"])
                time.sleep(0.3)
                row = api.call("GET", path)
    except KeyboardInterrupt:
        api.call("POST", f"{path}/cancel")
        raise fail(f"{row['id']} was cancelled.", 130) from None
    return row


def _print_scores(row: dict[str, Any]) -> None:
    scores = row["scores"]
    names = list(scores[row["variants"][0]])
    table = Table("", *(name.replace("_", " ") for name in names))
    for variant in row["variants"]:
        table.add_row(variant, *(f"{scores[variant][name]:g}" for name in names))
    print_table(table)


def _schema(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as wrong:
        raise fail(f"{file}: {wrong}") from wrong
