"""deploy, deployments, start, stop, scale, update, rm, events, explain."""

import math
import re
import sys
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from loraplex.cli.client import client, deployment_path, fail, out, print_json, print_table

_POLL_S = 1.0
_COMPARED_WITHIN_S = 120.0
_SCHEDULE = re.compile(
    r"(?:([a-z,]+)\s+)?(\d\d:\d\d)-(\d\d:\d\d)(?:\s+([A-Za-z_]+(?:/[A-Za-z_/+-]+)?))?\s+min=(\d+)"
)

Cooldown = Annotated[int | None, typer.Option(help="Seconds; no idle replica is kept longer.")]
Threshold = Annotated[int | None, typer.Option(help="Queued + running per replica.")]


def _finite(number: float | None) -> float | None:
    """JSON has no others."""
    if number is not None and not math.isfinite(number):
        raise fail(f"{number} is no number here.", 2)
    return number


TargetWait = Annotated[float | None, typer.Option(help="Seconds in the queue.", callback=_finite)]
Weight = Annotated[
    float | None,
    typer.Option(help="Idle seconds that a second of a cold start is worth.", callback=_finite),
]
Priority = Annotated[
    int | None, typer.Option(help="-100 to 100; on a full fleet the lower one yields.")
]
Schedules = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule", help="'mon,tue,wed,thu,fri 08:00-18:00 Europe/Berlin min=2'; '' clears."
    ),
]
Engine = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE, once for each (dtype=float32); replaces all of them."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    for command in (deploy, deployments, scale, update, start, stop, rm, events, explain):
        app.command()(command)


def deploy(
    name: str,
    base_model: Annotated[str, typer.Option(help="Hub name (org/model) or path.")],
    min_replicas: Annotated[int, typer.Option("--min-replicas", "--min", help="0: to zero.")] = 0,
    max_replicas: Annotated[int, typer.Option("--max-replicas", "--max")] = 1,
    cooldown_time: Cooldown = None,
    scale_up_threshold: Threshold = None,
    target_wait: TargetWait = None,
    cold_start_weight: Weight = None,
    priority: Priority = None,
    schedule: Schedules = None,
    engine: Engine = None,
) -> None:
    """Create a deployment of a base model."""
    body = _given(
        name=name,
        base_model=base_model,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        cooldown_time=cooldown_time,
        scale_up_threshold=scale_up_threshold,
        target_wait_s=target_wait,
        cold_start_weight=cold_start_weight,
        priority=priority,
        schedules=_schedules(schedule),
        engine=_engine(engine),
    )
    made = client().call("POST", "/api/v1/deployments", json=body)
    out.print(f"{made['name']} is {made['status']}. Ask it: loraplex chat {made['name']} 'Hello'")


def deployments(as_json: Json = False) -> None:
    """List the deployments."""
    rows = client().call("GET", "/api/v1/deployments")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "base model", "status", "replicas", "min-max", "reason")
    for d in rows:
        up = sum(r["phase"] == "ready" for r in d["replicas"])
        bounds = f"{d['min_replicas']}-{d['max_replicas']}"
        table.add_row(d["name"], d["base_model"], d["status"], str(up), bounds, d["reason"])
    print_table(table)


def scale(
    name: str,
    min_replicas: Annotated[int | None, typer.Option("--min", "--min-replicas")] = None,
    max_replicas: Annotated[int | None, typer.Option("--max", "--max-replicas")] = None,
    cooldown_time: Cooldown = None,
    scale_up_threshold: Threshold = None,
    target_wait: TargetWait = None,
    cold_start_weight: Weight = None,
    priority: Priority = None,
    schedule: Schedules = None,
) -> None:
    """Change the scaling bounds; replicas that run and their requests aren't disturbed."""
    body = _given(
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        cooldown_time=cooldown_time,
        scale_up_threshold=scale_up_threshold,
        target_wait_s=target_wait,
        cold_start_weight=cold_start_weight,
        priority=priority,
        schedules=_schedules(schedule),
    )
    _patch(name, body)


def update(
    name: str,
    base_model: Annotated[str | None, typer.Option(help="Another base model.")] = None,
    engine: Engine = None,
) -> None:
    """Change what replicas are made of: rolled out one by one, without losing a request."""
    _patch(name, _given(base_model=base_model, engine=_engine(engine)))


def _schedules(texts: list[str] | None) -> list[dict[str, Any]] | None:
    return None if texts is None else [_schedule(text) for text in texts if text]


def _engine(pairs: list[str] | None) -> dict[str, str] | None:
    return None if pairs is None else dict(_pair(each) for each in pairs if each)


def _given(**values: Any) -> dict[str, Any]:
    """Without what was left out: the platform's defaults hold, or it stays as it is."""
    return {name: value for name, value in values.items() if value is not None}


def _patch(name: str, body: dict[str, Any]) -> None:
    if not body:
        raise fail("Nothing to change: give an option (--help lists them).", 2)
    _say(client().call("PATCH", deployment_path(name), json=body))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise fail(f"{text!r} is not NAME=VALUE.", 2)
    return key, value


def _schedule(text: str) -> dict[str, Any]:
    """`[days] HH:MM-HH:MM [zone] min=N`, in that order."""
    found = _SCHEDULE.fullmatch(text.strip())
    if found is None:
        how = "[days] HH:MM-HH:MM [time zone] min=N, such as 'mon,fri 08:00-18:00 UTC min=2'"
        raise fail(f"{text!r} is no schedule. It is written {how}.", 2)
    days, start, end, zone, low = found.groups()
    given = {"start": start, "end": end, "min_replicas": int(low)}
    if days:
        given["days"] = days.split(",")
    return given | ({"timezone": zone} if zone else {})


def written(schedule: dict[str, Any]) -> str:
    """As it is typed."""
    hours = f"{schedule['start']}-{schedule['end']} {schedule['timezone']}"
    return f"{','.join(schedule['days'])} {hours} min={schedule['min_replicas']}"


def start(name: str) -> None:
    """From stopped back to standby; from errored: try again."""
    _say(client().call("POST", deployment_path(name, "/start")))


def stop(name: str) -> None:
    """Take no more requests and stop the replicas."""
    _say(client().call("POST", deployment_path(name, "/stop")))


def rm(name: str) -> None:
    """Delete a deployment."""
    _say(client().call("DELETE", deployment_path(name)))


def events(
    name: str,
    as_json: Json = False,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """What happened to a deployment, and why."""
    after = ""
    api = client()
    while True:
        path = deployment_path(name, f"/events{after}")
        answer = api.call("GET", path, may_be_gone=bool(after))
        if answer is None:
            out.print(f"{name} was deleted.")
            return
        rows = answer["data"]
        if as_json and not follow:
            print_json(rows)
        for e in rows:
            after = f"?after={e['id']}"
            if as_json and follow:  # a line each
                print_json(e)
                sys.stdout.flush()
            elif not as_json:
                _show_event(e)
        if not follow:
            return
        time.sleep(_POLL_S)


def _show_event(e: dict[str, Any]) -> None:
    moved = f"{e['from_status']} → {e['to_status']}"
    change = moved if e["from_status"] != e["to_status"] else e["kind"]
    out.print(f"{e['at'][:19]}Z  {change:26} {e['actor']:10} {_indented(e['reason'])}")


def _indented(text: str) -> str:
    """Lines of a log's tail, told from the next event."""
    return text.replace("\n", "\n    ")


def explain(
    name: str,
    as_json: Json = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="What other laws would have made of its traffic.")
    ] = False,
) -> None:
    """Why this many replicas: the latest decision, its inputs, what would change it."""
    if compare:
        _compare(name, as_json)
        return
    facts = client().call("GET", deployment_path(name, "/explain"))
    if as_json:
        print_json(facts)
        return
    out.print(f"{name} is {facts['status']}: {_indented(facts['reason'])}")
    if facts["wanted"] is None:
        out.print(facts["why"])
    else:
        at = facts["decided_at"][:19]
        out.print(f"{at}  has {facts['has']}, wants {facts['wanted']}")
        out.print(f"  why     {facts['why']}")
        for line in facts["would_change"]:
            out.print(f"  change  {line}")
        shown = "  ".join(f"{key} {value:g}" for key, value in facts["inputs"].items())
        out.print(f"  inputs  {shown}")
    for decision in facts["last_decisions"]:
        out.print(f"{decision['at'][:19]}Z  {_indented(decision['reason'])}")


def _compare(name: str, as_json: bool) -> None:
    path, api = deployment_path(name, "/comparison"), client()
    api.call("POST", path)
    deadline = time.monotonic() + _COMPARED_WITHIN_S
    while (answer := api.http.get(path)).status_code == 404 and time.monotonic() < deadline:
        time.sleep(_POLL_S / 2)
    found = api.call("GET", path) if answer.is_error else answer.json()
    if as_json:
        print_json(found)
        return
    target = found["target_wait_s"]
    out.print(
        f"{found['requests']} requests within {found['seconds']:.0f} s, {found['slots']} at once "
        f"on a replica, cold start {found['cold_start_s']:.1f} s"
    )
    table = Table("law", "replica-seconds", "cold starts", "wait p50", "p95", f"≤ {target:g} s")
    for law in found["laws"]:
        share = f"{100 * law['within_target']:.1f} %"
        waits = (f"{law['wait_p50_s']:.1f} s", f"{law['wait_p95_s']:.1f} s")
        row = (law["law"], f"{law['replica_seconds']:.0f}", str(law["starts"]), *waits, share)
        table.add_row(*row)
    print_table(table)
    out.print(
        "Every start takes as long and none fails; other deployments and the fleet's bound are "
        "left out."
    )


def _say(deployment: dict[str, Any]) -> None:
    change = deployment["change"]
    whereto = ""
    if change:
        engine = (f"{name}={value}" for name, value in change["engine"].items())
        whereto = f", going over to {' '.join([change['base_model'], *engine])}"
    out.print(f"{deployment['name']} is {deployment['status']}{whereto}.")
