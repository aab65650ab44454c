"""alias: list, set, promote, rollback, shadow, rm."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json

Ref = Annotated[str, typer.Argument(metavar="REPO@ALIAS")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Which version REPO@ALIAS is: set, promote …")
    for name, command in (
        ("list", list_aliases),
        ("set", set_),
        ("promote", promote),
        ("rollback", roll_back),
        ("shadow", shadow),
        ("rm", remove),
    ):
        group.command(name)(command)
    app.add_typer(group, name="alias")


def list_aliases(repo: str, as_json: Json = False) -> None:
    """Aliases of a repo."""
    rows = client().call("GET", f"/api/v1/repos/{quote(repo, safe='')}/aliases")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("alias", "versions", "before", "shadow")
    for row in rows:
        shadow = f"{row['shadow']} ({row['shadow_percent']:g} %)" if row["shadow"] else ""
        table.add_row(row["ref"], _shares(row["versions"]), _shares(row["previous"]), shadow)
    print_table(table)


def set_(
    ref: Ref,
    versions: Annotated[
        list[str], typer.Argument(metavar="VERSION[=WEIGHT]…", help="2, or 1=90 2=10.")
    ],
) -> None:
    """Move it, at once; what runs keeps its version."""
    weights = {}
    for each in versions:
        version, _, weight = each.rpartition("/")[2].partition("=")
        if not version.isdecimal() or not (weight or "1").isdecimal():
            raise fail(f"{each!r}: VERSION or VERSION=WEIGHT, such as 2, or 1=90 2=10.")
        if version in weights:
            raise fail(f"Version {version} is there twice.")
        weights[version] = int(weight or 1)
    if len(versions) > 1 and not all("=" in each for each in versions):
        raise fail("Give each version its weight, such as 1=90 2=10.")
    _show(client().call("PUT", _path(ref), json={"versions": weights}))


def promote(ref: Ref) -> None:
    """All of the traffic to its newest version."""
    _show(client().call("POST", f"{_path(ref)}/promote"))


def roll_back(ref: Ref) -> None:
    """To what it was before its last change."""
    _show(client().call("POST", f"{_path(ref)}/rollback"))


def shadow(
    ref: Ref,
    version: Annotated[str, typer.Argument(help="That is asked the same; off: none any more.")],
    percent: Annotated[float, typer.Option(help="Of the traffic.")] = 5.0,
) -> None:
    """Ask another version the same, when nothing waits; see: loraplex captures list."""
    path = f"{_path(ref)}/shadow"
    if version == "off":
        _show(client().call("DELETE", path))
        return
    number = version.rpartition("/")[2]
    if not number.isdecimal():
        raise fail(f"{version!r}: VERSION, such as 3, or off.")
    _show(client().call("PUT", path, json={"version": int(number), "percent": percent}))


def remove(ref: Ref) -> None:
    """Delete an alias; its versions stay."""
    client().call("DELETE", _path(ref))
    out.print(f"{ref} is deleted.")


def _show(row: dict[str, Any]) -> None:
    shadow = f", shadowed by {row['shadow']} ({row['shadow_percent']:g} %)" if row["shadow"] else ""
    out.print(f"{row['ref']} is {_shares(row['versions'])}{shadow}")


def _shares(weights: dict[str, int]) -> str:
    total = sum(weights.values())
    if len(weights) == 1:
        return next(iter(weights))
    return ", ".join(f"{version}: {weight / total:.0%}" for version, weight in weights.items())


def _path(ref: str) -> str:
    repo, at, alias = ref.partition("@")
    if not at:
        raise fail(f"{ref!r}: give REPO@ALIAS, such as poet@prod.")
    return f"/api/v1/repos/{quote(repo, safe='')}/aliases/{quote(alias, safe='')}"
