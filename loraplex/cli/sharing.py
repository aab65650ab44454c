"""share, limit: a deployment for all tenants, and what each may ask of one."""

from typing import Annotated

import typer

from loraplex.cli.client import client, deployment_path, fail, out
from loraplex.cli.tenants import Concurrent, PerDay, PerMinute, limits


def register(app: typer.Typer) -> None:
    for command in (share, limit):
        app.command()(command)


def share(
    name: str,
    off: Annotated[bool, typer.Option("--off", help="For its owner alone again.")] = False,
) -> None:
    """Let every tenant query a deployment, with adapters of its own. For those who run the
    platform."""
    client().call("PATCH", deployment_path(name), json={"shared": not off})
    out.print(f"{name} is {'private' if off else 'shared: every tenant may query it'}.")


def limit(
    name: str,
    requests_per_min: PerMinute = None,
    tokens_per_min: PerMinute = None,
    tokens_per_day: PerDay = None,
    concurrent: Concurrent = None,
    none: Annotated[bool, typer.Option("--none", help="Take all limits away.")] = False,
) -> None:
    """What each tenant may ask of a deployment: show it, or replace all of it (what isn't given is
    not limited then)."""
    body = limits(requests_per_min, tokens_per_min, tokens_per_day, concurrent)
    given = any(each is not None for each in body.values())
    if given and none:
        raise fail("--none goes with no other option.", 2)
    if given or none:
        made = client().call("PATCH", deployment_path(name), json={"limits": body})
    else:
        made = client().call("GET", deployment_path(name))
    found = [f"{n.replace('_', ' ')} {v:,}" for n, v in made["limits"].items() if v is not None]
    out.print(f"{name}: {', '.join(found) or 'no limits'}.")
