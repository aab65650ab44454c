"""webhooks: create, list, ping, log, retry, rm."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import client, out, print_json, print_table
from loraplex.cli.deployments import Json
from loraplex.cli.keys import day

Hook = Annotated[str, typer.Argument(metavar="ID")]


def register(app: typer.Typer) -> None:
    hooks = typer.Typer(no_args_is_help=True, help="Be told of events: create, list, ping, log …")
    hooks.command("create")(create)
    hooks.command("list")(list_webhooks)
    hooks.command("ping")(ping)
    hooks.command("log")(log)
    hooks.command("retry")(retry)
    hooks.command("rm")(remove)
    app.add_typer(hooks, name="webhooks")


def create(
    url: str,
    event: Annotated[
        list[str] | None,
        typer.Option(help="deployment.ready, 'budget.*' …, once for each; all if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have events sent to an address. The secret that signs them is shown once."""
    body = {"url": url, "events": event or ["*"]}
    row = client().call("POST", "/api/v1/webhooks", json=body)
    if as_json:
        print_json(row)
        return
    sys.stdout.write(row["secret"] + "\n")
    text = f"{row['id']}: {' '.join(row['events'])} → {row['url']}."
    out.print(f"{text} Keep the secret now, it is not shown again. Try: webhooks ping {row['id']}")


def list_webhooks(as_json: Json = False) -> None:
    rows = client().call("GET", "/api/v1/webhooks")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "url", "events", "made")
    for row in rows:
        table.add_row(row["id"], row["url"], " ".join(row["events"]), day(row["created_at"]))
    print_table(table)


def ping(hook: Hook) -> None:
    """Send it a test event."""
    row = client().call("POST", _path(hook, "/ping"))
    out.print(f"{row['id']} is on its way: loraplex webhooks log {hook}")


def log(hook: Hook, as_json: Json = False) -> None:
    """What was sent, and how it was answered; the latest first."""
    rows = client().call("GET", _path(hook, "/deliveries"))["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "event", "state", "tries", "answer", "next try")
    for row in rows:
        answer = row["error"] or str(row["status_code"] or "")
        due = day(row["next_at"])
        table.add_row(row["id"], row["type"], row["state"], str(row["attempts"]), answer, due)
    print_table(table)


def retry(hook: Hook, delivery: str) -> None:
    """Send a delivery again now."""
    row = client().call("POST", _path(hook, f"/deliveries/{quote(delivery, safe='')}/retry"))
    out.print(f"{row['id']} is on its way.")


def remove(hook: Hook) -> None:
    """End it, with its log."""
    client().call("DELETE", _path(hook))
    out.print(f"{hook} is gone.")


def _path(hook: str, rest: str = "") -> str:
    return f"/api/v1/webhooks/{quote(hook, safe='')}{rest}"
