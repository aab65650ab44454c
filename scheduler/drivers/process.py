"""Replicas as processes of this machine, a record file each: any process can list them."""

import builtins
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from loraplex.settings import Settings
from scheduler.drivers.base import Running

GRACE_S = 3.0
_BIRTH_S = 10.0  # a record without a pid is being started for this long


class ProcessDriver:
    """Records lie in `home/replicas`, logs in `home/logs/replicas`."""

    def __init__(self, settings: Settings) -> None:
        self._records = settings.home / "replicas"
        self._logs = settings.logs_dir / "replicas"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        for folder in (self._records, self._logs):
            folder.mkdir(parents=True, exist_ok=True)

    def start(self, replica: str, lane: str) -> None:
        self._reap()
        record = self._records / f"{replica}.json"
        try:
            record.open("x").close()
        except FileExistsError:
            return
        command = [sys.executable, "-m", "gpu_worker", "--replica", replica, "--lane", lane]
        with (self._logs / f"{replica}.log").open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children[replica] = child
        born = psutil.Process(child.pid).create_time()
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps({"pid": child.pid, "born": born, "lane": lane}))
        fresh.rename(record)

    def stop(self, replica: str) -> None:
        record = self._records / f"{replica}.json"
        process = _process(record)
        if process is not None:
            process.terminate()
            try:
                process.wait(GRACE_S)
            except psutil.TimeoutExpired:
                process.kill()
        self._reap()
        record.unlink(missing_ok=True)

    def list(self) -> builtins.list[Running]:
        self._reap()
        found = []
        for record in sorted(self._records.glob("*.json")):
            alive = _process(record) is not None or _being_born(record)
            tail = "" if alive else self._tail(record.stem)
            found.append(Running(record.stem, alive, tail))
        return found

    def _tail(self, replica: str, size: int = 2000) -> str:
        log = self._logs / f"{replica}.log"
        return log.read_bytes()[-size:].decode(errors="replace") if log.exists() else ""

    def _reap(self) -> None:
        """Collect ended children, so that none stays as a zombie."""
        for replica, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[replica]


def _process(record: Path) -> psutil.Process | None:
    """The living process of a record. A reused pid is told apart by its time of birth."""
    try:
        facts = json.loads(record.read_text())
        process = psutil.Process(facts["pid"])
        same = abs(process.create_time() - facts["born"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _being_born(record: Path) -> bool:
    try:
        facts = record.stat()
    except FileNotFoundError:
        return False
    return facts.st_size == 0 and time.time() - facts.st_mtime < _BIRTH_S


def stop_all(settings: Settings) -> None:
    """End every replica of this home (the platform goes down)."""
    driver = ProcessDriver(settings)
    for running in driver.list():
        driver.stop(running.replica)


if __name__ == "__main__":
    stop_all(Settings())
