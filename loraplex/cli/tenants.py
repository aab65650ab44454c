"""tenants: create, list, set. plans: set, list, rm. For those who run the platform."""

import math
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json
from loraplex.cli.keys import day

_NONE = "none"
LIMITS = ("requests_per_min", "tokens_per_min", "tokens_per_day", "concurrent")

PerMinute = Annotated[int | None, typer.Option(min=1, help="A minute's worth at once, at most.")]
PerDay = Annotated[int | None, typer.Option(min=1, help="The day is UTC's.")]
Concurrent = Annotated[int | None, typer.Option(min=1, help="Answers that wait or run at once.")]


def register(app: typer.Typer) -> None:
    tenants = typer.Typer(no_args_is_help=True, help="Tenants: create, list, set.")
    tenants.command("create")(create)
    tenants.command("list")(list_tenants)
    tenants.command("set")(set_tenant)
    app.add_typer(tenants, name="tenants")
    plans = typer.Typer(no_args_is_help=True, help="Plans, the limits of tenants: set, list, rm.")
    plans.command("set")(set_plan)
    plans.command("list")(list_plans)
    plans.command("rm")(remove_plan)
    app.add_typer(plans, name="plans")


def create(name: str) -> None:
    """Make a tenant. Its first key: loraplex keys create NAME --scope admin --tenant TENANT"""
    client().call("POST", "/api/v1/tenants", json={"name": name})
    how = f"loraplex keys create first --scope admin --tenant {name}"
    out.print(f"Tenant {name} is there. Make its first key: {how}")


def list_tenants(as_json: Json = False) -> None:
    """All of the platform."""
    rows = client().call("GET", "/api/v1/tenants")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("tenant", "made", "runs the platform", "plan", "budget", "state")
    for row in rows:
        budget = "" if row["budget"] is None else f"{row['budget']:g}"
        facts = ("yes" if row["operator"] else "", row["plan"] or "", budget)
        state = row["budget_state"] if budget else ""
        table.add_row(row["name"], day(row["created_at"]), *facts, state)
    print_table(table)


def set_tenant(
    name: str,
    plan: Annotated[str | None, typer.Option(help="A plan's name, or 'none'.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Cost of a calendar month that stops it, or 'none'.")
    ] = None,
    warn_at: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Part of it at which to warn: 0.8.")
    ] = None,
) -> None:
    """Change a tenant's plan or budget; what isn't given stays."""
    body: dict[str, Any] = {}
    if plan is not None:
        body["plan"] = None if plan == _NONE else plan
    if budget is not None:
        body["budget"] = None if budget == _NONE else _number(budget)
    if warn_at is not None:
        body["budget_warn_at"] = warn_at
    row = client().call("PATCH", f"/api/v1/tenants/{quote(name, safe='')}", json=body)
    limits = row["plan"] or "no plan"
    budget_shown = "no budget" if row["budget"] is None else f"a budget of {row['budget']:g}"
    out.print(f"{name}: {limits}, {budget_shown}.")


def set_plan(
    name: str,
    requests_per_min: PerMinute = None,
    tokens_per_min: PerMinute = None,
    tokens_per_day: PerDay = None,
    concurrent: Concurrent = None,
) -> None:
    """Make a plan, or replace all of its limits; what isn't given is not limited."""
    body = limits(requests_per_min, tokens_per_min, tokens_per_day, concurrent)
    client().call("PUT", f"/api/v1/plans/{quote(name, safe='')}", json=body)
    out.print(f"Plan {name} is set. Give it to a tenant: loraplex tenants set TENANT --plan {name}")


def list_plans(as_json: Json = False) -> None:
    rows = client().call("GET", "/api/v1/plans")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("plan", *(name.replace("_", " ") for name in LIMITS))
    for row in rows:
        table.add_row(row["name"], *("" if row[n] is None else f"{row[n]:,}" for n in LIMITS))
    print_table(table)


def remove_plan(name: str) -> None:
    """Only while no tenant has it."""
    client().call("DELETE", f"/api/v1/plans/{quote(name, safe='')}")
    out.print(f"Plan {name} is gone.")


def limits(*given: int | None) -> dict[str, int | None]:
    """In the order of `LIMITS`."""
    return dict(zip(LIMITS, given, strict=True))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise fail(f"{text!r} is neither a number nor 'none'.", 2)
    return number
