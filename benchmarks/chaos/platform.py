"""The platform under attack: every process of it, kept running as its supervisor would."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from sqlmodel import Session, select

from benchmarks.chaos.proxy import Proxy
from loraplex import apikeys, detached
from loraplex.cli.client import Client
from loraplex.cli.demo import register_adapter
from loraplex.database import connect, migrate
from loraplex.embedded.ports import free_port
from loraplex.embedded.valkey import find_server, write_config
from loraplex.entities import Deployment
from loraplex.keys import Lane
from loraplex.store.models import DEMO_MODEL, ModelStore

DEPLOYMENT = "chat"
ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
REPLICAS = 2
LEASE_S = 2
RETENTION_S = 60
_PATIENCE_S = 180


class Platform:
    """Valkey, API processes, scaler, task worker; replicas are the scaler's. Home: a folder."""

    def __init__(self, home: Path, models: ModelStore, apis: int = 2) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "logs").mkdir()
        (home / "models").symlink_to(models.root)
        self.home = home
        self.database = f"sqlite:///{home / 'loraplex.db'}"
        self.key = apikeys.new_key()
        self.doors: dict[str, Proxy] = {}  # by kind of process
        self._commands: dict[str, tuple[Sequence[str], dict[str, str]]] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._paused: set[str] = set()  # not to be started again yet
        self._keeper: asyncio.Task[None] | None = None
        self._valkey_port = free_port()
        self.api_urls = {f"api-{i}": f"http://127.0.0.1:{free_port()}" for i in range(apis)}
        patient = Retry(ConstantBackoff(0.2), 100)
        self.redis = redis.asyncio.Redis.from_url(self._url(self._valkey_port), retry=patient)
        self.lane = Lane("", "")

    async def start(self) -> None:
        """Returns when both adapters are registered and all replicas are ready."""
        config = write_config(self.home / "valkey", self._valkey_port, "secret")
        self._spawn("valkey", [str(find_server()), str(config)], {})
        await self.redis.ping()
        settings = {
            "LORAPLEX_HOME": str(self.home),
            "LORAPLEX_LEASE_S": str(LEASE_S),
            "LORAPLEX_RETENTION_S": str(RETENTION_S),
            "LORAPLEX_DTYPE": "float32",
            "LORAPLEX_DETERMINISTIC": "true",
            "LORAPLEX_THREADS": "1",
            "LORAPLEX_MAX_RUNNING": "16",
            "LORAPLEX_HEARTBEAT_S": "2",
            "PYTHONUNBUFFERED": "1",
        }
        migrate(self.database)
        with Session(connect(self.database)) as session:
            apikeys.store(session, apikeys.FIRST_TENANT, "chaos", self.key)
        celery = ["celery", "-A", "scheduler.tasks.app", "worker", "-Q", "tasks,imports"]
        commands = {
            **{name: ["api"] for name in self.api_urls},
            "scaler": ["scheduler"],
            "tasks": [*celery, "--pool=threads", "--without-gossip", "--without-mingle"],
        }
        for name, command in commands.items():
            door = self.doors["replicas" if name == "tasks" else name] = Proxy(self._valkey_port)
            own = {"LORAPLEX_REDIS_URL": self._url(await door.open())}
            if name in self.api_urls:
                own["LORAPLEX_PORT"] = self.api_urls[name].rpartition(":")[2]
            self._spawn(name, [sys.executable, "-m", *command], settings | own)
        self._keeper = asyncio.create_task(self._keep())
        async with self.http() as api:
            await self.until(lambda: _answers(api))
            await self._deploy(api)

    async def _deploy(self, api: httpx.AsyncClient) -> None:
        client = Client(self.api_urls["api-0"], self.key)
        for repo in ("pirate", "json"):
            await asyncio.to_thread(register_adapter, client, repo, ADAPTERS / repo)
        bounds = {"min_replicas": REPLICAS, "max_replicas": REPLICAS}
        body = {"name": DEPLOYMENT, "base_model": DEMO_MODEL} | bounds
        made = await api.post("/api/v1/deployments", json=body)
        made.raise_for_status()
        with Session(connect(self.database)) as session:
            self.lane = session.exec(select(Deployment)).one().lane
        await self.until(self.all_ready)

    async def stop(self) -> None:
        """Nothing is left running."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        for name in [*reversed(self._children)]:
            self.resume(name)
            self._children[name].kill()
            self._children[name].wait()
        for process in self.replicas():
            process.kill()
        for door in self.doors.values():
            await door.close()
        await self.redis.aclose()

    def http(self, api: str = "api-0") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        timeout = httpx.Timeout(30, read=60)
        return httpx.AsyncClient(base_url=self.api_urls[api], headers=headers, timeout=timeout)

    def replicas(self) -> list[psutil.Process]:
        """Their processes, loading or ready."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "gpu_worker" in command and f"{self.lane.name}" in command:
                found.append(process)
        return sorted(found, key=lambda process: process.pid)

    async def all_ready(self) -> bool:
        """All replicas have their leases."""
        leases = [key async for key in self.redis.scan_iter(self.lane.lease_prefix + "*")]
        return len(leases) >= REPLICAS

    def kill(self, name: str) -> None:
        """SIGKILL; it is started again."""
        self._children[name].kill()

    def freeze(self, name: str) -> None:
        self._children[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._children[name].send_signal(signal.SIGCONT)

    async def restart_valkey(self, down_s: float, how: signal.Signals) -> None:
        self._paused.add("valkey")
        self._children["valkey"].send_signal(how)
        while self._children["valkey"].poll() is None:
            await asyncio.sleep(0.02)
        await asyncio.sleep(down_s)
        self._paused.discard("valkey")

    async def until(self, fact: Any) -> None:
        """Poll until an async fact holds. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while not await fact():
                await asyncio.sleep(0.1)

    async def _keep(self) -> None:
        while True:
            for name, child in list(self._children.items()):
                if child.poll() is not None and name not in self._paused:
                    self._spawn(name, *self._commands[name])
            await asyncio.sleep(0.2)

    def _spawn(self, name: str, command: Sequence[str], settings: dict[str, str]) -> None:
        self._commands[name] = command, settings
        log = self.home / "logs" / f"{name}.log"
        self._children[name] = detached.start(command, log, env=os.environ | settings)

    @staticmethod
    def _url(port: int) -> str:
        return f"redis://:secret@127.0.0.1:{port}/0"


async def _answers(api: httpx.AsyncClient) -> bool:
    try:
        return (await api.get("/health")).status_code == 200
    except httpx.TransportError:
        return False
