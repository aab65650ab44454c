"""`home/platform.json`: which processes belong to this home, and how to reach them."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A pid alone may be another process by now: the time of birth tells."""

    name: str
    pid: int
    born: float

    @classmethod
    def of(cls, name: str, pid: int) -> "ProcessRecord":
        return cls(name, pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(slots=True)
class PlatformRecord:
    url: str
    api_key: str
    redis_url: str
    processes: list[ProcessRecord] = field(default_factory=list)  # the supervisor first

    @property
    def alive(self) -> list[ProcessRecord]:
        return [p for p in self.processes if p.find() is not None]

    @property
    def supervised(self) -> bool:
        return any(p.name == "supervisor" for p in self.alive)

    def save(self, home: Path) -> None:
        fresh = _file(home).with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.rename(_file(home))

    @classmethod
    def load(cls, home: Path) -> "PlatformRecord | None":
        try:
            fields = json.loads(_file(home).read_text())
        except FileNotFoundError:
            return None
        fields["processes"] = [ProcessRecord(**p) for p in fields["processes"]]
        return cls(**fields)

    @staticmethod
    def forget(home: Path) -> None:
        _file(home).unlink(missing_ok=True)


def _file(home: Path) -> Path:
    return home / "platform.json"


def end(processes: Iterable[ProcessRecord], patience_s: float = 10.0) -> None:
    """SIGTERM, then SIGKILL for those that are still there."""
    found = [p for p in (record.find() for record in processes) if p is not None]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(found, timeout=patience_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
