"""docs/index.md, word for word, by a stranger: a clean clone of HEAD, an empty home, no pip cache.

- `commands`: that are typed until the first token of an answer to the page's request.
- `minutes_to_first_token`: from the first of them; `minutes_again`: of `make up` the second time.
- `mb_on_disk`: environment, base model and state; `mb_received`: by this machine meanwhile
  (what the package index has on the same machine isn't in it).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from docs.blocks import blocks
from loraplex.embedded.ports import free_port

REPOSITORY = Path(__file__).parents[1]
_UP = "Ctrl-C stops everything."
_PATIENCE_S = 1800


def measure(quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        clone, home = Path(folder) / "loraplex", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
        port = free_port()
        page = (clone / "docs" / "index.md").read_text()
        start, ask = (block.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for block in typed(page))
        known = ("PATH", "LANG", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
        environment = {name: os.environ[name] for name in known if name in os.environ}
        environment |= {"HOME": str(home), "LORAPLEX_PORT": str(port), "PIP_NO_CACHE_DIR": "1"}
        received, began = _received(), time.monotonic()
        platform = _up(start, clone, environment)
        try:
            _first_token(ask, clone, environment)
            first_s = time.monotonic() - began
            result = {
                "commands": len(typed(page)),
                "minutes_to_first_token": round(first_s / 60, 2),
                "mb_on_disk": _megabytes(clone / ".venv") + _megabytes(home),
                "mb_received": (_received() - received) // 2**20,
            }
        finally:
            _stop(platform)
        began = time.monotonic()
        platform = _up(start, clone, environment)
        result["minutes_again"] = round((time.monotonic() - began) / 60, 2)
        _stop(platform)
    report.table("Quick start", ("", "measured"), list(result.items()))
    return result


def typed(page: str) -> list[str]:
    found = [block.text for block in blocks(page) if block.language == "sh"]
    assert len(found) == 2, "make up, then a request"
    return found


def _up(command: str, clone: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """Returns when it says that it is up."""
    platform = subprocess.Popen(
        ["bash", "-c", command],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert platform.stdout is not None
    deadline = time.monotonic() + _PATIENCE_S
    for line in platform.stdout:
        sys.stderr.write(line)
        if _UP in line:
            return platform
        assert time.monotonic() < deadline
    raise RuntimeError(f"{command.strip()} ended with {platform.wait()}")


def _first_token(command: str, clone: Path, environment: dict[str, str]) -> None:
    asked = subprocess.Popen(
        ["bash", "-c", command], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert asked.stdout is not None
    first = next((line for line in asked.stdout if '"content":"' in line.replace(" ", "")), None)
    asked.terminate()
    asked.wait()
    assert first is not None, "no token came"


def _stop(platform: "subprocess.Popen[str]") -> None:
    """Ctrl-C."""
    os.killpg(platform.pid, signal.SIGINT)
    assert platform.stdout is not None
    for line in platform.stdout:
        sys.stderr.write(line)
    platform.wait()


def _received() -> int:
    """Bytes, but for those from this machine."""
    counters = psutil.net_io_counters(pernic=True)
    return sum(each.bytes_recv for name, each in counters.items() if name != "lo")


def _megabytes(folder: Path) -> int:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) // 2**20


if __name__ == "__main__":
    report.main("quickstart", measure, ())
