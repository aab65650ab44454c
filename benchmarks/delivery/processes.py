"""Valkey, one API process over it, one over its own memory, and the fake replica."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import redis
from sqlmodel import Session

from loraplex import apikeys
from loraplex.broker.connection import Unavailable, connect
from loraplex.database import connect as connect_database
from loraplex.database import migrate
from loraplex.embedded.ports import free_port
from loraplex.embedded.valkey import find_server, write_config
from loraplex.entities import Deployment
from loraplex.keys import Lane
from loraplex.status import Status
from loraplex.store.models import DEMO_MODEL, ModelStore


class Processes:
    """Nothing of them is left after `stop`."""

    def __init__(self, home: Path, models: ModelStore, **settings: str) -> None:
        home.mkdir()
        (home / "models").symlink_to(models.root)
        self.key = apikeys.new_key()
        self._children: list[subprocess.Popen[bytes]] = []
        self._home = home
        port = free_port()
        self.redis_url = url = f"redis://:secret@127.0.0.1:{port}/0"
        self._environment = os.environ | {
            "LORAPLEX_HOME": str(home),
            "LORAPLEX_REDIS_URL": url,
            "LORAPLEX_MAX_BACKLOG": "1000",
            **settings,
        }
        self.redis: redis.Redis = connect(url)
        self.spawn([str(find_server()), str(write_config(home / "valkey", port, "secret"))])
        until(self._redis_answers)
        self.lane = self._deploy(f"sqlite:///{home / 'loraplex.db'}")
        self.ports = {
            "redis": self._api("api"),
            "memory": self._api("benchmarks.delivery.memory_api"),
        }

    def replica(self, name: str, step_s: float, most: int) -> Callable[[], dict[str, Any]]:
        """Start a fake replica. Returns what ends it and gives what it has noted."""
        times = self._home / f"{name}.json"
        command = [sys.executable, "-m", "benchmarks.delivery.fake_replica", "--name", name]
        command += ["--lane", self.lane.name, "--step-s", str(step_s), "--most", str(most)]
        child = self.spawn([*command, "--times", str(times)])
        until(lambda: bool(self.redis.exists(f"{self.lane.lease_prefix}{name}:0")))

        def end() -> dict[str, Any]:
            child.send_signal(signal.SIGTERM)
            child.wait()
            noted: dict[str, Any] = json.loads(times.read_text())
            return noted

        return end

    def stop(self) -> None:
        for child in reversed(self._children):
            child.kill()
            child.wait()

    def _deploy(self, database: str) -> Lane:
        migrate(database)
        with Session(connect_database(database)) as session:
            apikeys.store(session, apikeys.FIRST_TENANT, "benchmark", self.key)
            bounds = {"min_replicas": 1, "max_replicas": 1}
            deployment = Deployment(
                tenant_id=apikeys.FIRST_TENANT,
                name="chat",
                base_model=DEMO_MODEL,
                status=Status.READY.value,
                cooldown_time=60,
                scale_up_threshold=10,
                **bounds,
            )
            session.add(deployment)
            session.commit()
            return deployment.lane

    def _api(self, module: str) -> int:
        return self.serve([sys.executable, "-m", module])

    def serve(self, command: Sequence[str]) -> int:
        """Start an HTTP process: its port."""
        port = free_port()
        self.spawn(command, LORAPLEX_PORT=str(port))
        until(lambda: _answers(port))
        return port

    def python(self, module: str, *arguments: str) -> None:
        """Run a module of ours until the end."""
        self.spawn([sys.executable, "-m", module, *arguments])

    def spawn(self, command: Sequence[str], **settings: str) -> "subprocess.Popen[bytes]":
        log = (self._home / "log").open("ab")
        environment = self._environment | settings
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._children.append(child)
        return child

    def _redis_answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except Unavailable:
            return False


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, "a process doesn't come up; see its log"
        time.sleep(0.05)
