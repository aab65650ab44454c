"""keys: create, list, rotate, revoke."""

import re
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Column, Table

from loraplex.cli.client import client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json
from loraplex.scopes import Scope

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Tenant = Annotated[str | None, typer.Option(help="Another's, for those who run the platform.")]


def register(app: typer.Typer) -> None:
    keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate, revoke.")
    keys.command("create")(create)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys")


def create(
    name: str,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="Once for each; inference if not given.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After 90d, 12h, 30m; else never.")] = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Make an API key. It is shown once."""
    body: dict[str, Any] = {"name": name, "tenant": tenant, "scopes": scope or [Scope.INFERENCE]}
    if expires is not None:
        body["expires_in_s"] = seconds(expires)
    _show_new(client().call("POST", "/api/v1/keys", json=body), as_json)


def list_keys(tenant: Tenant = None, as_json: Json = False) -> None:
    """The tenant's keys; the keys themselves are not kept."""
    query = {"tenant": tenant} if tenant else {}
    rows = client().call("GET", "/api/v1/keys", params=query)["data"]
    if as_json:
        print_json(rows)
        return
    table = Table(
        Column("id", no_wrap=True), "name", "key", "scopes", "expires", "last used", "revoked"
    )
    for row in rows:
        times = (day(row[field]) for field in ("expires_at", "last_used_at", "revoked_at"))
        table.add_row(row["id"], row["name"], f"{row['hint']}…", " ".join(row["scopes"]), *times)
    print_table(table)


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    grace: Annotated[str, typer.Option(help="The old one works for so long: 1h.")] = "0s",
    as_json: Json = False,
) -> None:
    """Make another key in the place of one; it is shown once."""
    body = {"grace_s": seconds(grace)}
    _show_new(client().call("POST", _path(key_id, "/rotate"), json=body), as_json)


def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key at once."""
    row = client().call("DELETE", _path(key_id))
    out.print(f"{row['name']} ({row['id']}) is revoked.")


def _show_new(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    sys.stdout.write(row["key"] + "\n")
    end = f", until {day(row['expires_at'])}" if row["expires_at"] else ""
    text = f"{row['name']} ({row['id']}) of {row['tenant']}: {' '.join(row['scopes'])}{end}."
    out.print(f"{text} Keep it now, it is not shown again.")


def _path(key_id: str, rest: str = "") -> str:
    return f"/api/v1/keys/{quote(key_id, safe='')}{rest}"


def seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    if found is None:
        raise fail(f"{text!r} is no duration such as 90d, 12h, 30m or 45s.", 2)
    return float(found[1]) * _UNITS_S[found[2]]


def day(at: str | None) -> str:
    return f"{at[:16].replace('T', ' ')}Z" if at else ""
