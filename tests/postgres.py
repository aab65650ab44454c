"""A PostgreSQL server of its own, where Debian's packages are installed."""

import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from loraplex.embedded.ports import free_port

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def available() -> bool:
    return bool(_DEBIAN) and shutil.which("runuser") is not None


def create(server_url: str, name: str) -> None:
    """A database on a server."""
    url = server_url.replace("+psycopg", "") + "postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Its SQLAlchemy URL. It refuses to run as root: so it runs as the packages' user."""
    user = pwd.getpwnam("postgres")
    data = folder / "postgres"
    data.mkdir()
    shutil.chown(data, user.pw_uid, user.pw_gid)
    for parent in (folder, *folder.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
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
