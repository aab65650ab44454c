"""logs: of the embedded platform's processes and replicas."""

import time
from pathlib import Path
from typing import Annotated

import typer

from loraplex.cli.client import client, fail, out
from loraplex.settings import Settings

PROCESSES = ("api", "scaler", "tasks", "valkey", "up")


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
    positions = {}
    for file in files:
        lines = file.read_text(errors="replace").splitlines()[-tail:]
        for line in lines:
            out.print(line, markup=False)
        positions[file] = file.stat().st_size
    while follow:
        time.sleep(0.3)
        for file in _files(folder, name):
            with file.open(errors="replace") as log:
                log.seek(positions.get(file, 0))
                for line in log:
                    out.print(line.rstrip(), markup=False)
                positions[file] = log.tell()


def _files(folder: Path, name: str) -> list[Path]:
    if name in PROCESSES:
        return [f for f in [folder / f"{name}.log"] if f.is_file()]
    replicas = client().call("GET", f"/api/v1/deployments/{name}/replicas")["data"]
    found = [folder / "replicas" / f"{replica['id']}.log" for replica in replicas]
    return [file for file in found if file.is_file()]
