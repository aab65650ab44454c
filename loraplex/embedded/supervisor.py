"""Starts the platform's processes, restarts those that die, stops all of them in order."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import httpx
from sqlmodel import Session

from loraplex import apikeys, detached
from loraplex.broker.connection import Unavailable
from loraplex.broker.connection import connect as connect_redis
from loraplex.database import connect, migrate
from loraplex.embedded.ports import free_port
from loraplex.embedded.record import PlatformRecord, ProcessRecord, end
from loraplex.embedded.valkey import find_server, write_config
from loraplex.settings import ApiSettings, EmbeddedSettings

Say = Callable[[str], None]

# A process each: downloads don't stand before starts.
_TASK_WORKERS = {"tasks": "tasks", "imports": "imports,training"}


def pause_before_start(lived_s: float, last_pause_s: float) -> float:
    """Of what has died: longer each time where it does so soon. Pure."""
    return 0.5 if lived_s > 60 or not last_pause_s else min(last_pause_s * 2, 30.0)


class CannotStart(Exception):
    """Something outside stands in the way; the text says what to do."""


class Supervisor:
    """The owner of one home's processes. Each runs in a session of its own: Ctrl-C is ours."""

    def __init__(self, settings: EmbeddedSettings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        port = settings.valkey_port or free_port()
        self._valkey_port = port
        self._password = self._secret("valkey-password", lambda: secrets.token_urlsafe(24))
        key = self._secret("api-key", apikeys.new_key)
        host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
        self.record = PlatformRecord(
            url=f"http://{host}:{settings.port}",
            api_key=key,
            redis_url=f"redis://:{self._password}@127.0.0.1:{port}/0",
        )

    def start(self) -> None:
        """Everything up and answering, or CannotStart (and nothing left running)."""
        _check_port(self._settings.host, self._settings.port, "LORAPLEX_PORT")
        _check_port("127.0.0.1", self._valkey_port, "LORAPLEX_VALKEY_PORT")
        home = self._settings.home
        home.chmod(0o700)  # the queue's files hold prompts
        (home / "logs").mkdir(parents=True, exist_ok=True)
        self.record.processes = [ProcessRecord.of("supervisor", os.getpid())]
        try:
            max_mib = self._settings.valkey_max_mib
            config = write_config(home / "valkey", self._valkey_port, self._password, max_mib)
            self._spawn("valkey", [str(find_server()), str(config)])
            self._wait("valkey", self._redis_answers)
            migrate(self._settings.database)
            with Session(connect(self._settings.database)) as session:
                apikeys.store(session, apikeys.FIRST_TENANT, "embedded", self.record.api_key)
            python = sys.executable
            if self._settings.warm_parent:  # replicas start without it, too: nobody waits for it
                self._spawn("warm", [python, "-m", "gpu_worker.warm_parent"])
            self._spawn("api", [python, "-m", "api"])
            self._spawn("scaler", [python, "-m", "scheduler"])
            for name, queues in _TASK_WORKERS.items():
                self._spawn(name, [python, "-m", "celery", *_celery_worker(name, queues)])
            self._wait("api", self._api_answers)
        except BaseException:
            self.stop()
            raise

    def watch(self, stop: threading.Event) -> None:
        """Until `stop`: start again what dies, with a pause."""
        pause_s = dict.fromkeys(self._commands, 0.0)
        started = dict.fromkeys(self._commands, time.monotonic())
        while not stop.wait(0.5):
            for name, child in list(self._children.items()):
                if child.poll() is None:
                    continue
                pause_s[name] = pause_before_start(time.monotonic() - started[name], pause_s[name])
                if not stop.wait(pause_s[name]):
                    self._say(f"{name} ended with code {child.returncode}; starting it again")
                    self._spawn(name, self._commands[name])
                    started[name] = time.monotonic()

    def stop(self) -> None:
        """Everything down: those that start others first, Valkey last."""
        records = {p.name: p for p in self.record.processes}
        starters = ("api", "scaler", *_TASK_WORKERS, "warm")
        end(records[name] for name in starters if name in records)
        stop_replicas(self._settings)
        end([records["valkey"]] if "valkey" in records else [])
        for child in self._children.values():
            child.wait()
        PlatformRecord.forget(self._settings.home)

    def _spawn(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        log = self._settings.logs_dir / f"{name}.log"
        child = detached.start(command, log, env=self._environment(), cwd=self._settings.home)
        self._children[name] = child
        others = [p for p in self.record.processes if p.name != name]
        self.record.processes = [*others, ProcessRecord.of(name, child.pid)]
        self.record.save(self._settings.home)

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "LORAPLEX_HOME": str(self._settings.home),
            "LORAPLEX_REDIS_URL": self.record.redis_url,
            "LORAPLEX_DEV": os.environ.get("LORAPLEX_DEV", "true"),
            "PYTHONUNBUFFERED": "1",
        }

    def _wait(self, name: str, ready: Callable[[], bool], patience_s: float = 60.0) -> None:
        deadline = time.monotonic() + patience_s
        while not ready():
            log = self._settings.logs_dir / f"{name}.log"
            code = self._children[name].poll()
            if code is not None:
                tail = log.read_text(errors="replace")[-1500:]
                raise CannotStart(f"{name} ended with code {code}:\n{tail}")
            if time.monotonic() > deadline:
                raise CannotStart(f"{name} doesn't answer after {patience_s:g} s; see {log}")
            time.sleep(0.05)

    def _redis_answers(self) -> bool:
        with contextlib.closing(connect_redis(self.record.redis_url)) as client:
            try:
                return bool(client.ping())
            except Unavailable:
                return False

    def _api_answers(self) -> bool:
        try:
            return httpx.get(f"{self.record.url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        """Kept in the home folder, readable by its owner only."""
        self._settings.home.mkdir(parents=True, exist_ok=True)
        file = self._settings.home / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(make())
        return file.read_text().strip()


def _celery_worker(name: str, queues: str) -> list[str]:
    """Threads: tasks wait for downloads and processes, not for the CPU."""
    return [
        *("-A", "scheduler.tasks.app", "worker", "-Q", queues, "-n", f"{name}@%h"),
        *("--loglevel=INFO", "--pool=threads", "--concurrency=8"),
        *("--without-gossip", "--without-mingle"),
    ]


def stop_replicas(settings: ApiSettings) -> str:
    """End every replica of this home, whoever started it. Not empty: why some may still run."""
    done = subprocess.run(
        [sys.executable, "-m", "scheduler.drivers.choose"],
        env=os.environ | {"LORAPLEX_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.strip().rpartition("\n")[2]
    return last or f"exit code {done.returncode}" if done.returncode else ""


def clean_up(settings: ApiSettings, record: PlatformRecord) -> None:
    """End what a supervisor left behind that was killed."""
    ordered = sorted(record.alive, key=lambda p: p.name == "valkey")
    end([p for p in ordered if p.name != "valkey"])
    stop_replicas(settings)
    end([p for p in ordered if p.name == "valkey"])
    PlatformRecord.forget(settings.home)


def _check_port(host: str, port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as taken:
            raise CannotStart(
                f"{host}:{port} can't be used ({taken.strerror}). "
                f"Choose another port: {setting}=… loraplex up"
            ) from taken
