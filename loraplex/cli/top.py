"""top, ps: what runs now."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loraplex.cli.client import Client, client, error_text, fail, out, print_json, print_table

_AGAIN_S = 1.0
_SHOWN = {"deployments", "rates", "jobs"}
_PASSING = (429, 502, 503, 504)  # it, or what it needs, is away or busy
_NARROWEST = 110  # columns, where they need not fit into a window
_STATUS = {"ready": "green", "standby": "dim", "stopped": "dim", "errored": "red"}

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    app.command()(top)
    app.command()(ps)


def ps(as_json: Json = False) -> None:
    """List the replicas that run, of all deployments."""
    rows = [
        {"deployment": deployment["name"], **replica}
        for deployment in client().call("GET", "/api/v1/deployments")["data"]
        for replica in deployment["replicas"]
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("No replica runs: the next request starts one.")
        return
    print_table(_replicas(rows))


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one look, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON a second, for programs.")
    ] = False,
) -> None:
    """Watch deployments, replicas, backlog and throughput, live. Ctrl-C ends it."""
    api = client()
    if once or as_json or not out.is_terminal:
        for state in _states(api):
            if as_json:
                print_json(state)
            else:
                width = max(out.width, _NARROWEST)
                Console(width=width, markup=False, highlight=False).print(_shown(state))
            if once or not as_json:
                return
    with Live(screen=True, auto_refresh=False, console=Console(highlight=False)) as live:
        try:
            for state in _states(api):
                live.update(_shown(state), refresh=True)
        except KeyboardInterrupt:
            return


def _states(api: Client) -> Iterator[dict[str, Any]]:
    """What is known, after each change. Goes on when the API was away."""
    state: dict[str, Any] = {}
    while True:
        try:
            with _stream(api, first=not state) as lines:
                event = ""
                for line in lines:
                    if line.startswith("event: "):
                        event = line[7:]
                    elif line.startswith("data: ") and _take(state, event, line[6:]):
                        yield dict(state)
        except httpx.TransportError as away:
            if not state:
                raise fail(f"The API does not answer ({away}). Try: loraplex up") from away
        time.sleep(_AGAIN_S)


def _take(state: dict[str, Any], event: str, data: str) -> bool:
    """Whether there is something to show."""
    if event == "changed":
        changed = {each["name"]: each for each in json.loads(data)}
        state["deployments"] = [changed.get(each["name"], each) for each in state["deployments"]]
    elif event in _SHOWN:
        state[event] = json.loads(data)
    elif event == "ended":
        raise fail(data)
    else:
        return False
    return state.keys() == _SHOWN


@contextmanager
def _stream(api: Client, *, first: bool) -> Iterator[Iterator[str]]:
    with api.http.stream("GET", "/api/v1/live", timeout=httpx.Timeout(5, read=60)) as response:
        if response.status_code == 200:
            yield response.iter_lines()
        elif response.status_code in _PASSING and not first:
            yield iter(())
        else:
            response.read()
            raise fail(error_text(response))


def _shown(state: dict[str, Any]) -> Group:
    deployments, rates = state["deployments"], state["rates"] or {}
    replicas = [{"deployment": d["name"], **r} for d in deployments for r in d["replicas"]]
    tokens = sum(rate.get("tokens_per_s") or 0 for rate in rates.values())
    cost = sum(rate.get("cost_per_h") or 0 for rate in rates.values())
    head = f"{len(deployments)} deployments   {len(replicas)} replicas   {tokens:.1f} tokens/s"
    head += f"   {cost:g}/h" if cost else ""
    parts: list[Text | Table] = [Text(head, style="bold"), _deployments(deployments, rates)]
    if state["rates"] is None:
        parts.append(
            Text(
                "Rates are not known: no scaler leads, or the key lacks the scope 'deployments'.",
                style="yellow",
            )
        )
    if replicas:
        parts.append(_replicas(replicas))
    if state["jobs"]:
        parts.append(_jobs(state["jobs"]))
    return Group(*parts)


def _deployments(deployments: list[dict[str, Any]], rates: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("deployment", "status"):
        table.add_column(name)
    for name in ("replicas", "waiting", "running", "req/s", "tokens/s", "ttft p50", "cost/h"):
        table.add_column(name, justify="right")
    for each in deployments:
        rate = rates.get(each["name"], {})
        ready = sum(replica["phase"] == "ready" for replica in each["replicas"])
        first = rate.get("first_token_s_p50")
        table.add_row(
            each["name"],
            Text(each["status"], style=_STATUS.get(each["status"], "yellow")),
            f"{ready}/{each['max_replicas']}",
            f"{rate.get('waiting') or 0:.0f}",
            str(sum(replica["running"] for replica in each["replicas"])),
            f"{rate.get('requests_per_s') or 0:.1f}",
            f"{rate.get('tokens_per_s') or 0:.1f}",
            "–" if first is None else f"{first:.2f} s",
            f"{rate.get('cost_per_h') or 0:g}",
        )
    return table


def _replicas(replicas: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("replica", "deployment", "phase"):
        table.add_column(name)
    for name in ("running", "adapters", "tokens/s", "mixed", "busy", "KV", "memory"):
        table.add_column(name, justify="right")
    for each in replicas:
        table.add_row(
            *(each["id"], each["deployment"], each["phase"]),
            f"{each['running']}/{each['capacity']}",
            str(len(each["adapters"])),
            f"{each['tokens_per_s']:.1f}",
            f"{each['mixed_steps']}/{each['steps']}",
            f"{each['device']} {each['utilization']:.0%}",
            f"{each['kv_used']:.0%}",
            f"{each['memory'] / 2**30:.1f} GiB",
        )
    return table


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("fine-tuning", "state"):
        table.add_column(name)
    for name in ("step", "loss", "left"):
        table.add_column(name, justify="right")
    for each in jobs:
        table.add_row(
            *(each["id"], each["state"], f"{each['step']}/{each['total_steps'] or '?'}"),
            "–" if each["loss"] is None else f"{each['loss']:.3f}",
            "–" if each["left_s"] is None else f"{each['left_s']:.0f} s",
        )
    return table
