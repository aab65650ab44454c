"""A PostgreSQL server of its own, where Debian's packages are installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from loraplex.embedded.ports import free_port

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def available() -> bool:
    """Who starts it must be able to run as another user."""
    return bool(_DEBIAN) and shutil.which("runuser") is not None and os.geteuid() == 0


def create(server_url: str, name: str) -> None:
    """A database on a server."""
    url = server_url.replace("+psycopg", "") + "postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')


@contextmanager
def server() -> Iterator[str]:
    """Its SQLAlchemy URL. It refuses to run as root: so it runs as the packages' user, in a folder
    of that user's (pytest's own are for root alone)."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        shutil.chown(folder, "postgres", "postgres")
        yield from _serve(Path(folder))


def _serve(data: Path) -> Iterator[str]:
    port = free_port()
    as_user = ["runuser", "-u", "postgres", "--"]
    bin_ = str(_DEBIAN[-1])
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data}
    subprocess.run([*as_user, f"{bin_}/initdb", "-D", str(data), "-A", "trust"], **quiet)
    options = f"-p {port} -k {data} -c fsync=off -c listen_addresses=127.0.0.1"
    control = [*as_user, f"{bin_}/pg_ctl", "-D", str(data), "-w"]
    subprocess.run([*control, "-l", str(data / "log"), "-o", options, "start"], **quiet)
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="postgres").close()
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
