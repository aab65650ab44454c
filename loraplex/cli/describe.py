"""describe: all that is known of a deployment, on one page."""

from typing import Annotated, Any

import typer

from loraplex.cli.client import client, deployment_path, out, print_json
from loraplex.cli.deployments import written

_LATEST = 8
_CONFIGURED = (
    *("base_model", "description", "min_replicas", "max_replicas", "cooldown_time"),
    *("scale_up_threshold", "target_wait_s", "cold_start_weight", "priority", "shared", "capture"),
)


def register(app: typer.Typer) -> None:
    app.command()(describe)


def describe(
    name: str, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show a deployment: configuration, status and why, replicas, latest events."""
    api = client()
    parts: dict[str, Any] = {"deployment": api.call("GET", deployment_path(name))}
    for part in ("explain", "replicas", "events"):
        found = api.call("GET", deployment_path(name, f"/{part}"))
        parts[part] = found.get("data", found)
    if as_json:
        print_json(parts)
        return
    deployment = parts["deployment"]
    _line("Name", deployment["name"])
    _line("Status", f"{deployment['status']}   {deployment['reason']}")
    for field in _CONFIGURED:
        if deployment[field] is not False and deployment[field] not in ("", None):
            _line(field, deployment[field])
    _pairs("Engine", deployment["engine"])
    for each in deployment["schedules"]:
        _line("schedule", written(each))
    if change := deployment["change"]:
        _line("change", f"to revision {change['revision']}: {change['base_model']}")
        _pairs("", change["engine"])
    _pairs("limits", {k: v for k, v in deployment["limits"].items() if v is not None})
    out.print("Replicas")
    living = [row for row in parts["replicas"] if row["state"] != "gone"]
    reports = {report["id"]: report for report in deployment["replicas"]}
    for row in living:
        report = reports.get(row["id"])
        more = f", {report['running']} running" if report else ""
        out.print(f"  {row['id']}  {row['state']} at {row['host']}/{row['slot']}{more}")
        if row["reason"]:
            out.print(f"    {row['reason']}")
    if not living:
        out.print("  none")
    out.print("Scaling")
    why = parts["explain"]
    out.print(f"  wants {why['wanted']}, may have {why['allowed']}, has {why['has']}: {why['why']}")
    for each in why["would_change"]:
        out.print(f"  {each}")
    out.print("Events")
    for event in parts["events"][-_LATEST:]:
        out.print(
            f"  {event['at'][:19]}  {event['kind']}  {(event['reason'].splitlines() or [''])[0]}"
        )


def _pairs(label: str, values: dict[str, Any]) -> None:
    if values:
        _line(label, ", ".join(f"{name}={value}" for name, value in values.items()))


def _line(label: str, value: object) -> None:
    text = label.replace("_", " ").capitalize()
    out.print(f"{text:<20} {value}")
