"""logs: of this machine's processes, and of deployments."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from loraplex.cli.client import client, deployment_path, err, fail, out
from loraplex.settings import Settings

_LOOK_EACH_S = 0.5
_PAGE = 1000
PROCESSES = ("api", "scaler", "tasks", "imports", "valkey", "up")


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    name: Annotated[str, typer.Argument(help="api, scaler, tasks, valkey, or a deployment.")],
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", help="Lines from the end.")] = 50,
) -> None:
    """Show the latest lines of a process of this machine, or of a deployment's replicas on all."""
    if name not in PROCESSES:
        _of_deployment(name, follow, tail)
        return
    file = Settings().logs_dir / f"{name}.log"
    if not file.is_file():
        raise fail(f"There is no {file}.")
    for line in _lines(file)[-tail:]:
        out.print(line)
    position = file.stat().st_size
    while follow:
        time.sleep(_LOOK_EACH_S)
        with file.open(errors="replace") as log:
            log.seek(position)
            for line in log:
                out.print(line.rstrip())
            position = log.tell()


def _of_deployment(name: str, follow: bool, tail: int) -> None:
    api, path, after = client(), deployment_path(name, "/logs"), ""
    most = min(tail, _PAGE)
    while True:
        query: dict[str, Any] = {"tail": most, "after": after}
        lines = api.call("GET", path, params=query)["data"]
        for line in lines:
            out.print(line["text"])
            after = line["id"]
        if not follow:
            if not after:
                err.print(f"No replica of {name} has logged anything lately.")
            return
        after, most = after or "0-0", _PAGE
        time.sleep(_LOOK_EACH_S)


def _lines(file: Path) -> list[str]:
    """Its lines; what a progress bar has overwritten is left out, and what follows a line of ours
    (a traceback) stays with it."""
    lines: list[str] = []
    for raw in file.read_text(errors="replace").splitlines():
        line = raw.rpartition("\r")[2]
        if lines and not line[:4].isdigit():
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
    return lines
