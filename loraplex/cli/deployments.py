"""deploy, deployments, start, stop, scale, rm, events."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from loraplex.cli.client import client, deployment_path, out

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    for command in (deploy, deployments, scale, start, stop, rm, events):
        app.command()(command)


def deploy(
    name: str,
    base_model: Annotated[str, typer.Option(help="Hub name (org/model) or path.")],
    min_replicas: Annotated[int, typer.Option(help="0: scale to zero.")] = 0,
    max_replicas: int = 1,
    cooldown_time: Annotated[int, typer.Option(help="Seconds without work.")] = 3600,
    scale_up_threshold: Annotated[int, typer.Option(help="Queued + running per replica.")] = 16,
) -> None:
    """Create a deployment of a base model."""
    body = {
        "name": name,
        "base_model": base_model,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "cooldown_time": cooldown_time,
        "scale_up_threshold": scale_up_threshold,
    }
    made = client().call("POST", "/api/v1/deployments", json=body)
    out.print(f"{made['name']} is {made['status']}. Ask it: loraplex chat {made['name']} 'Hello'")


def deployments(as_json: Json = False) -> None:
    """List the deployments."""
    rows = client().call("GET", "/api/v1/deployments")["data"]
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = Table("name", "base model", "status", "replicas", "min-max", "reason")
    for d in rows:
        up = sum(r["phase"] == "ready" for r in d["replicas"])
        bounds = f"{d['min_replicas']}-{d['max_replicas']}"
        table.add_row(d["name"], d["base_model"], d["status"], str(up), bounds, d["reason"])
    out.print(table)


def scale(
    name: str,
    min_replicas: int | None = None,
    max_replicas: int | None = None,
    cooldown_time: int | None = None,
) -> None:
    """Change the scaling bounds."""
    wanted = {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "cooldown_time": cooldown_time,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    _say(client().call("PATCH", deployment_path(name), json=body))


def start(name: str) -> None:
    """From stopped back to standby; from errored: try again."""
    _say(client().call("POST", deployment_path(name, "/start")))


def stop(name: str) -> None:
    """Take no more requests and stop the replicas."""
    _say(client().call("POST", deployment_path(name, "/stop")))


def rm(name: str) -> None:
    """Delete a deployment."""
    _say(client().call("DELETE", deployment_path(name)))


def events(name: str, as_json: Json = False) -> None:
    """What happened to a deployment, and why."""
    rows = client().call("GET", deployment_path(name, "/events"))["data"]
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for e in rows:
        moved = f"{e['from_status']} → {e['to_status']}"
        change = moved if e["from_status"] != e["to_status"] else e["kind"]
        out.print(f"{e['at'][:19]}  {change:26} {e['actor']:10} {e['reason']}", markup=False)


def _say(deployment: dict[str, Any]) -> None:
    out.print(f"{deployment['name']} is {deployment['status']}.")
