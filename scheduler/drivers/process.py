"""Replicas as processes of this machine, a record and a lock each: any process can list them.

A replica holds its lock file from its first instant to its last, so that whoever sees the home
folder knows whether it lives: also from another container, where its pid means nothing.
"""

import builtins
import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import psutil

from loraplex import detached, warm
from loraplex.settings import Settings
from scheduler.drivers.base import ReplicaSpec, Running

log = logging.getLogger(__name__)

GRACE_S = 3.0
_LOCK_PATIENCE_S = 5.0


class ProcessDriver:
    """Records lie in `home/replicas`, logs in `home/logs/replicas`."""

    def __init__(self, settings: Settings) -> None:
        self._records = settings.home / "replicas"
        self._logs = settings.logs_dir / "replicas"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        for folder in (self._records, self._logs):
            folder.mkdir(parents=True, exist_ok=True)

    def start(self, spec: ReplicaSpec) -> None:
        self._reap()
        record = self._records / f"{spec.id}.json"
        with record.with_suffix(".lock").open("w") as lock:
            if not _acquire(lock, unless=record):
                return
            pid = self._run(spec, lock.fileno())
            fresh = record.with_suffix(".new")
            fresh.write_text(json.dumps({"pid": pid, "born": _born(pid), "lane": spec.lane}))
            fresh.rename(record)

    def _run(self, spec: ReplicaSpec, lock: int) -> int:
        """Its pid: forked from the warm parent where there is one, else a process from scratch."""
        arguments = ["--replica", spec.id, "--lane", spec.lane, "--asked-at", repr(time.time())]
        environment = {**_own_gpu(spec), **os.environ, **spec.settings}
        file = self._logs / f"{spec.id}.log"
        ask = warm.Ask(arguments, environment, os.getcwd(), str(file), sys.executable)
        try:
            return warm.fork(self._records, ask, lock)
        except warm.NotForked as reason:
            log.info("replica %s is started from scratch: %s", spec.id, reason)
        command = [sys.executable, "-m", "gpu_worker", *arguments]
        child = detached.start(command, file, env=environment, pass_fds=[lock])
        self._children[spec.id] = child
        return child.pid

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
        record.with_suffix(".lock").unlink(missing_ok=True)

    def kill(self, replica: str) -> None:
        process = _process(self._records / f"{replica}.json")
        if process is not None:
            process.kill()

    def list(self) -> builtins.list[Running]:
        self._reap()
        found = []
        for record in sorted(self._records.glob("*.json")):
            alive = _is_held(record.with_suffix(".lock"))
            found.append(Running(record.stem, alive, "" if alive else self._tail(record.stem)))
        return found

    def _tail(self, replica: str, size: int = 2000) -> str:
        log = self._logs / f"{replica}.log"
        return log.read_bytes()[-size:].decode(errors="replace") if log.exists() else ""

    def _reap(self) -> None:
        """Collect ended children, so that none stays as a zombie."""
        for replica, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[replica]


def _own_gpu(spec: ReplicaSpec) -> dict[str, str]:
    """The one of its slot, where the settings name no device: replicas must not share one."""
    has_gpus = Path("/dev/nvidiactl").exists()
    return {"LORAPLEX_DEVICE": f"cuda:{spec.slot}"} if has_gpus else {}


def _process(record: Path) -> psutil.Process | None:
    """The living process of a record. A reused pid is told apart by its time of birth."""
    try:
        facts = json.loads(record.read_text())
        process = psutil.Process(facts["pid"])
        same = abs(process.create_time() - facts["born"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _born(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it has ended, and its parent has seen it
        return time.time()


def _acquire(lock: TextIO, unless: Path) -> bool:
    """Lock it for a start. False: `unless` exists, so it was started before, or is right now."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while not unless.exists():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody looks at it, or starts it
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return not unless.exists()
    return False


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
