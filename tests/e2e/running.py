"""A running platform as tests use it, and the one of processes that `loraplex up` makes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import psutil

from loraplex.embedded.ports import free_port
from loraplex.store.models import DEMO_MODEL, ModelStore

COOLDOWN_S = 4
T = TypeVar("T")


@dataclass
class Platform:
    """A home, and the commands that a user types."""

    home: Path
    environment: dict[str, str]
    takes_paths = True  # of models and adapters on this machine

    def loraplex(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "loraplex.cli.app", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    @property
    def url(self) -> str:
        return str(self._record()["url"])

    @property
    def api_key(self) -> str:
        return str(self._record()["api_key"])

    @property
    def redis_url(self) -> str:
        return str(self._record()["redis_url"])

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.home / "platform.json").read_text())
        return record

    def process(self, name: str) -> psutil.Process:
        """One of the platform's own, such as `api`; it is started again when it ends."""
        pids = (each["pid"] for each in self._record()["processes"] if each["name"] == name)
        return psutil.Process(next(pids))

    def no_starts(self) -> AbstractContextManager[None]:
        """Replicas that are asked for meanwhile are started after it."""
        return suspended(self.process("tasks"))

    def replica_process(self, replica: str) -> psutil.Process:
        record = json.loads((self.home / "replicas" / f"{replica}.json").read_text())
        return psutil.Process(record["pid"])

    def replicas(self) -> list[str]:
        """Those that the driver has not stopped yet."""
        return [file.stem for file in (self.home / "replicas").glob("rep-*.json")]

    def base_model(self, folder: Path) -> str:
        """What a deployment names to serve the model of a folder."""
        return str(folder)

    @contextmanager
    def another_api(self) -> Iterator[tuple[httpx.Client, psutil.Process]]:
        """Another API process over the same queue and database."""
        port = free_port()
        settings = {"LORAPLEX_PORT": str(port), "LORAPLEX_REDIS_URL": self.redis_url}
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=os.environ | self.environment | settings
        )
        api = self.http()
        api.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        try:
            until(lambda: answers(api), bool)
            yield api, psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()

    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.api_key, max_retries=0, timeout=120
        )

    def deployment(self, name: str) -> dict[str, Any]:
        answer = self.http().get(f"/api/v1/deployments/{name}")
        assert answer.status_code == 200, answer.text
        facts: dict[str, Any] = answer.json()
        return facts

    def deployments(self) -> list[str]:
        return [each["name"] for each in self.http().get("/api/v1/deployments").json()["data"]]

    def events(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            self.http().get(f"/api/v1/deployments/{name}/events").json()["data"]
        )
        return rows

    def deploy(self, name: str, **settings: Any) -> None:
        body = {"name": name, "base_model": DEMO_MODEL, "cooldown_time": COOLDOWN_S} | settings
        answer = self.http().post("/api/v1/deployments", json=body)
        assert answer.status_code == 201, answer.text


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def until(ask: Callable[[], T], good: Callable[[T], bool], patience_s: float = 90) -> T:
    """Poll until an answer is good; its last value is in the failure."""
    deadline = time.monotonic() + patience_s
    while not good(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {patience_s:g} s"
        time.sleep(0.1)
    return answer


def answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def make_platform(home: Path, models: ModelStore, **settings: str) -> Platform:
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(models.root)
    environment = {"LORAPLEX_HOME": str(home), "LORAPLEX_PORT": str(free_port())} | settings
    return Platform(home, environment)


@contextmanager
def up(platform: Platform) -> Iterator[None]:
    """Started by the command, and stopped by it without a process left behind."""
    started = platform.loraplex("up", "--detach", "--no-demo")
    assert started.returncode == 0, started.stderr + started.stdout
    yield
    down = platform.loraplex("down")
    assert down.returncode == 0, down.stderr
    left = [p for p in psutil.process_iter() if _belongs(p, platform.home)]
    assert not left, "`down` left processes behind"


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("LORAPLEX_HOME") == str(home)
    except psutil.Error:
        return False
