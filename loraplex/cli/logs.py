"""logs: of the embedded platform's processes and replicas."""

import time
from pathlib import Path
from typing import Annotated

import typer

from loraplex.cli.client import client, deployment_path, fail, out
from loraplex.settings import Settings

PROCESSES = ("api", "scaler", "tasks", "imports", "valkey", "up")


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    name: Annotated[str, typer.Argument(help="api, scaler, tasks, valkey, or a deployment.")],
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", help="Lines from the end.")] = 50,
) -> None:
    """Show the latest lines of a process, or of a deployment's replicas."""
    folder = Settings().logs_dir
    files = _files(folder, name)
    if not files:
        raise fail(f"No logs of {name!r} in {folder}.")
    latest = [(line, file) for file in files for line in _lines(file)]
    if len(files) > 1:  # of several replicas: by time, which begins each line
        latest.sort(key=lambda entry: entry[0][:23])
    for line, _ in latest[-tail:]:
        out.print(line)
    positions = {file: file.stat().st_size for file in files}
    while follow:
        time.sleep(0.3)
        for file in _files(folder, name):
            with file.open(errors="replace") as log:
                log.seek(positions.get(file, 0))
                for line in log:
                    out.print(line.rstrip())
                positions[file] = log.tell()


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


def _files(folder: Path, name: str) -> list[Path]:
    if name in PROCESSES:
        return [f for f in [folder / f"{name}.log"] if f.is_file()]
    replicas = client().call("GET", deployment_path(name, "/replicas"))["data"]
    found = [folder / "replicas" / f"{replica['id']}.log" for replica in replicas]
    return [file for file in found if file.is_file()]
