"""finetune: train an adapter of a file; jobs: list, show, cancel."""

import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from loraplex.cli.client import Client, client, fail, out, print_json, print_table
from loraplex.cli.deployments import Json

_JOBS = "/v1/fine_tuning/jobs"
_PAGE = 1000


def register(app: typer.Typer) -> None:
    app.command("finetune")(finetune)
    group = typer.Typer(invoke_without_command=True, help="Fine-tuning jobs: list, follow, cancel.")
    group.callback()(list_jobs)
    group.command("follow")(follow)
    group.command("cancel")(cancel)
    app.add_typer(group, name="jobs")


def finetune(
    data: Annotated[str, typer.Argument(help="A file (JSON lines, CSV), or a dataset's name.")],
    base: Annotated[str, typer.Option(help="A base model, or a deployment of one.")],
    repo: Annotated[str, typer.Option(help="Whose next version it becomes.")],
    validation: Annotated[str, typer.Option(help="The same, to validate with.")] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="rank=8, epochs=5, learning_rate=1e-3, validation_split=0.1 …"),
    ] = None,
    detach: Annotated[bool, typer.Option(help="Don't wait for its end.")] = False,
) -> None:
    """Train a LoRA adapter. Ctrl-C leaves it running."""
    lora = _settings(set_ or [])
    api = client()
    files = {"training_file": send_rows(api, data)}
    if validation:
        files["validation_file"] = send_rows(api, validation)
    body = {"model": base, "suffix": repo, "lora": lora, **files}
    try:
        job = api.call("POST", _JOBS, json=body)["id"]
    except typer.Exit:
        for named, sent in zip((data, validation), files.values(), strict=False):
            if sent != named:  # it was sent for this, and isn't needed
                api.call("DELETE", f"/v1/files/{quote(sent, safe='')}")
        raise
    if detach:
        out.print(job)
        return
    out.print(f"{job}  (Ctrl-C leaves it running: loraplex jobs follow {job})")
    follow(job)


def follow(job: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print what a job tells, until it ends."""
    api = client()
    path = f"{_JOBS}/{quote(job, safe='')}"
    seen = 0
    while True:
        row = api.call("GET", path)
        events = api.call("GET", f"{path}/events", params={"limit": _PAGE})["data"]
        for event in reversed(events):
            number = int(event["id"].rpartition("-")[2])
            if number > seen:
                seen = number
                out.print(f"{event['message']}{_left(event)}")
        if row["status"] in ("succeeded", "failed", "cancelled"):
            break
        time.sleep(0.5)
    if row["status"] != "succeeded":
        raise fail(f"{job} {row['status']}")


def _left(event: dict[str, Any]) -> str:
    left_s = (event["data"] or {}).get("left_s")
    if not left_s:
        return ""
    return f", {left_s:.0f} s left" if left_s < 100 else f", {left_s / 60:.0f} min left"


def list_jobs(context: typer.Context, as_json: Json = False) -> None:
    """List fine-tuning jobs, the newest first."""
    if context.invoked_subcommand:
        return
    rows = client().call("GET", _JOBS, params={"limit": _PAGE})["data"]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "base model", "status", "step", "loss", "adapter")
    for row in rows:
        far = row["progress"]
        loss = "" if far["loss"] is None else f"{far['loss']:.3f}"
        steps = f"{far['step']}/{far['total_steps']}"
        result = row["fine_tuned_model"] or f"({row['user_provided_suffix']})"
        table.add_row(row["id"], row["model"], row["status"], steps, loss, result)
    print_table(table)


def cancel(job: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a job; what it has learned is gone."""
    client().call("POST", f"{_JOBS}/{quote(job, safe='')}/cancel")
    out.print(f"{job} is cancelled.")


def send_rows(api: Client, named: str) -> str:
    """The id of a file that is sent now, or a dataset's name."""
    path = Path(named)
    if not path.is_file():
        return named
    with path.open("rb") as file:
        sent = api.call(
            "POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": (path.name, file)}
        )
    return str(sent["id"])


def _settings(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise fail(f"--set {pair!r}: NAME=VALUE, such as rank=8.")
        listed = name == "target_modules" and not value.startswith("[")
        found[name] = value.split(",") if listed else _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
