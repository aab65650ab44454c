"""adapters: list, add, import, show, download, archive, unarchive, rm; repos."""

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.progress import Progress
from rich.table import Table

from loraplex.cli.client import Client, client, fail, out, print_json, print_table
from loraplex.cli.demo import register_adapter
from loraplex.cli.deployments import Json

Ref = Annotated[str, typer.Argument(metavar="REPO/VERSION")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True, help="List, add, download or remove adapters.")
    group.callback()(list_adapters)
    for name, command in (
        ("add", add),
        ("import", import_),
        ("imports", list_imports),
        ("cancel", cancel_import),
        ("show", show),
        ("download", download),
        ("archive", archive),
        ("unarchive", unarchive),
        ("tag", tag),
        ("rm", remove),
    ):
        group.command(name)(command)
    app.add_typer(group, name="adapters")
    repos = typer.Typer(invoke_without_command=True, help="List repos, or remove one.")
    repos.callback()(list_repos)
    repos.command("figures")(repo_figures)
    repos.command("rm")(remove_repo)
    app.add_typer(repos, name="repos")


def list_adapters(
    context: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Archived ones, too.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="That have it: NAME or NAME=VALUE.")] = None,
    as_json: Json = False,
) -> None:
    """List adapters; see the commands for more."""
    if context.invoked_subcommand:
        return
    rows = list(_all({"archived": all_, "tag": tag or []}))
    if as_json:
        print_json(rows)
        return
    table = Table("adapter", "base model", "rank", "targets", "size", "state", "digest")
    for a in rows:
        size = f"{a['size_bytes'] / 2**20:.1f} MiB"
        name = f"{a['ref']} (archived)" if a["archived"] else a["ref"]
        targets = ", ".join(a["targets"])
        facts = (str(a["rank"]), targets, size, a["state"], a["digest"][:12])
        table.add_row(name, a["base_model"], *facts)
    print_table(table)


def _all(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Page by page."""
    api, more = client(), True
    while more:
        page = api.call("GET", "/api/v1/adapters", params=params)
        yield from page["data"]
        more = page["has_more"]
        params = params | {"after": page["data"][-1]["ref"]} if more else params


def add(
    repo: str,
    folder: Annotated[
        Path, typer.Argument(help="PEFT's config and safetensors lie there; or an archive of it.")
    ],
    base_model: Annotated[str, typer.Option(help="Instead of the one in the config.")] = "",
) -> None:
    """Register a PEFT LoRA as the next version of a repo."""
    out.print(register_adapter(client(), repo, folder, base_model))


def import_(
    source: Annotated[
        str,
        typer.Argument(help="hub:ORG/NAME[@REVISION], s3://BUCKET/FOLDER, a folder of the server."),
    ],
    repo: Annotated[str, typer.Option(help="Unset: after the source.")] = "",
    base_model: Annotated[str, typer.Option(help="Instead of the one in the config.")] = "",
    token: Annotated[
        str, typer.Option(envvar="LORAPLEX_IMPORT_TOKEN", help="The hub's, for this import alone.")
    ] = "",
) -> None:
    """Have the server fetch an adapter, and wait for it. Ctrl-C cancels."""
    api = client()
    body = {"source": source, "repo": repo, "base_model": base_model, "token": token}
    out.print(wait_for_import(api, api.call("POST", "/api/v1/imports", json=body))["adapter"])


def wait_for_import(api: Client, row: dict[str, Any]) -> dict[str, Any]:
    """Shows how far it is; Ctrl-C cancels it."""
    path, source = f"/api/v1/imports/{row['id']}", row["source"]
    try:
        with Progress(transient=True, console=out) as bars:
            bar = bars.add_task(source, total=1.0)
            while row["state"] in ("queued", "running"):
                bars.update(bar, completed=row["progress"] or 0.0)
                time.sleep(0.3)
                row = api.call("GET", path)
    except KeyboardInterrupt:
        api.call("POST", f"{path}/cancel")
        raise fail(f"{source} was cancelled.", 130) from None
    if row["state"] != "succeeded":
        raise fail(f"{source}: {row['error'] or row['state']}")
    return row


def list_imports(as_json: Json = False) -> None:
    """Imports, the newest first."""
    rows = client().call("GET", "/api/v1/imports")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "source", "repo", "state", "")
    for row in rows:
        far = "" if row["progress"] is None else f"{row['progress']:.0%}"
        doing = f"{row['doing']} {far}" if row["state"] == "running" else ""
        end = row["adapter"] or row["error"] or doing
        table.add_row(row["id"], row["source"], row["repo"], row["state"], end)
    print_table(table)


def cancel_import(import_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End an import that is under way."""
    client().call("POST", f"/api/v1/imports/{quote(import_id, safe='')}/cancel")


def show(ref: Ref, as_json: Json = False) -> None:
    """What a version is made of."""
    facts = client().call("GET", _path(ref))
    if as_json:
        print_json(facts)
        return
    places = facts.pop("places")
    for name, value in facts.items():
        out.print(f"{name:11} {_shown(value)}")
    for place in places:
        reason = f": {place['reason']}" if place["reason"] else ""
        out.print(f"  {place['deployment']} {place['replica']} {place['tier']}{reason}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def download(
    ref: Ref,
    folder: Annotated[Path | None, typer.Argument(help="A new one; unset: REPO-VERSION.")] = None,
) -> None:
    """Get a version's files into a folder, as PEFT loads it."""
    target = folder or Path(ref.replace("/", "-"))
    if target.exists():
        raise fail(f"{target} exists already.")
    with zipfile.ZipFile(io.BytesIO(client().content(f"{_path(ref)}/content"))) as files:
        files.extractall(target)
    out.print(str(target))


def archive(ref: Ref) -> None:
    """Don't list it any more; who names it still has it."""
    client().call("PATCH", _path(ref), json={"archived": True})


def unarchive(ref: Ref) -> None:
    """List it again."""
    client().call("PATCH", _path(ref), json={"archived": False})


def tag(
    ref: Ref,
    tags: Annotated[list[str], typer.Argument(metavar="NAME=VALUE…", help="NAME= takes it away.")],
) -> None:
    """Change a version's tags."""
    api = client()
    found = api.call("GET", _path(ref))["tags"]
    for each in tags:
        name, equals, value = each.partition("=")
        if not equals:
            raise fail(f"{each!r}: NAME=VALUE, such as stage=prod.")
        found[name] = value
    kept = {name: value for name, value in found.items() if value}
    api.call("PATCH", _path(ref), json={"tags": kept})


def remove(ref: Ref) -> None:
    """Delete a version. Answers under way go on; its number isn't used again."""
    client().call("DELETE", _path(ref))
    out.print(f"{ref} is deleted.")


def list_repos(context: typer.Context, as_json: Json = False) -> None:
    """List repos, the newest first."""
    if context.invoked_subcommand:
        return
    rows = client().call("GET", "/api/v1/repos")["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("repo", "versions", "description")
    for row in rows:
        numbers = ", ".join(str(each["version"]) for each in row["versions"])
        table.add_row(row["name"], numbers, row["description"])
    print_table(table)


def repo_figures(
    name: str,
    hours: Annotated[float, typer.Option(help="The last ones.")] = 24,
    as_json: Json = False,
) -> None:
    """How each version does: answers, failures, tokens, seconds."""
    path = f"/api/v1/repos/{quote(name, safe='')}/figures"
    rows = client().call("GET", path, params={"hours": hours})["data"]
    if as_json:
        print_json(rows)
        return
    names = ["answers", "failed", "completion_tokens", "first_token_p50_s", "first_token_p95_s"]
    names += ["duration_p50_s", "tokens_per_s_p50"]
    table = Table("version", *(each.replace("_", " ") for each in names))
    for row in rows:
        values = ("" if row[each] is None else f"{row[each]:g}" for each in names)
        table.add_row(row["version"], *values)
    print_table(table)


def remove_repo(
    name: str, yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False
) -> None:
    """Delete a repo with all its versions."""
    path = f"/api/v1/repos/{quote(name, safe='')}"
    versions = client().call("GET", path)["versions"]
    if not yes and not typer.confirm(f"Delete {name!r} with its {len(versions)} version(s)?"):
        raise typer.Exit(1)
    client().call("DELETE", path)
    out.print(f"{name} is deleted.")


def _path(ref: str) -> str:
    repo, slash, version = ref.partition("/")
    if not slash:
        raise fail(f"{ref!r}: give REPO/VERSION, such as pirate/1. They are: loraplex adapters")
    return f"/api/v1/adapters/{quote(repo, safe='')}/{quote(version, safe='')}"
