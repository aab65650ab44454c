"""The whole platform, as a user starts it, in a home of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import psutil
import pytest

from kernels.cpu.build import library
from loraplex.apikeys import FIRST_TENANT
from loraplex.embedded.ports import free_port
from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import ADAPTERS
from tests.fakes.hub import Hub
from tests.fakes.hub import hub as a_hub
from tests.fakes.otlp import Collector, collector
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3

COOLDOWN_S = 4


@dataclass
class Platform:
    """A home, and the commands that a user types."""

    home: Path
    environment: dict[str, str]

    def loraplex(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "loraplex.cli.app", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.loraplex("status", "--json").stdout)
        return facts

    def process(self, name: str) -> psutil.Process:
        record = json.loads((self.home / "platform.json").read_text())
        return psutil.Process(next(p["pid"] for p in record["processes"] if p["name"] == name))

    def replica_process(self, replica: str) -> psutil.Process:
        record = json.loads((self.home / "replicas" / f"{replica}.json").read_text())
        return psutil.Process(record["pid"])

    def http(self) -> httpx.Client:
        facts = json.loads((self.home / "platform.json").read_text())
        headers = {"authorization": f"Bearer {facts['api_key']}"}
        return httpx.Client(base_url=facts["url"], headers=headers, timeout=120)

    def openai(self) -> openai.OpenAI:
        facts = json.loads((self.home / "platform.json").read_text())
        return openai.OpenAI(
            base_url=f"{facts['url']}/v1", api_key=facts["api_key"], max_retries=0, timeout=120
        )

    def deployment(self, name: str) -> dict[str, Any]:
        answer = self.http().get(f"/api/v1/deployments/{name}")
        assert answer.status_code == 200, answer.text
        facts: dict[str, Any] = answer.json()
        return facts

    def events(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            self.http().get(f"/api/v1/deployments/{name}/events").json()["data"]
        )
        return rows

    def deploy(self, name: str, **settings: Any) -> None:
        body = {"name": name, "base_model": DEMO_MODEL, "cooldown_time": COOLDOWN_S} | settings
        answer = self.http().post("/api/v1/deployments", json=body)
        assert answer.status_code == 201, answer.text


T = TypeVar("T")


def until(ask: Callable[[], T], good: Callable[[T], bool], patience_s: float = 90) -> T:
    """Poll until an answer is good; its last value is in the failure."""
    deadline = time.monotonic() + patience_s
    while not good(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {patience_s:g} s"
        time.sleep(0.1)
    return answer


def make_platform(home: Path, models: ModelStore, **settings: str) -> Platform:
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(models.root)
    environment = {"LORAPLEX_HOME": str(home), "LORAPLEX_PORT": str(free_port())} | settings
    return Platform(home, environment)


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """The hub that the platform knows, with the repo `org/pirate`."""
    with a_hub() as running:
        files = (ADAPTERS / "pirate").iterdir()
        running.repos["org/pirate"] = {file.name: file.read_bytes() for file in files}
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """Its S3, by environment variables, with `pirate` in the tenant's folder."""
    with an_s3() as environment:
        files = (ADAPTERS / "pirate").iterdir()
        content = {file.name: file.read_bytes() for file in files}
        put(environment, "adapters", f"{FIRST_TENANT}/pirate", content)
        yield environment


@pytest.fixture(scope="session")
def traces() -> Iterator[Collector]:
    """Where its traces go: all requests are traced."""
    with collector() as running:
        yield running


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: ModelStore,
    smollm2: Path,
    hub: Hub,
    s3: dict[str, str],
    traces: Collector,
) -> Iterator[Platform]:
    """Up, with both adapters registered and the deployment `chat`: float32, one replica."""
    home = tmp_path_factory.mktemp("home")
    running = make_platform(
        home / "state",
        model_store,
        LORAPLEX_DTYPE="float32",
        # Texts are compared across takeovers.
        LORAPLEX_DETERMINISTIC=str(library() is not None).lower(),
        LORAPLEX_MAX_BACKLOG="20",
        LORAPLEX_HEARTBEAT_S="1",
        LORAPLEX_PRICES='{"*": 3.6}',
        LORAPLEX_BUDGET_CHECK_S="1",
        LORAPLEX_CALLBACK_HOSTS='["127.0.0.1"]',
        LORAPLEX_REDACT="tests.fakes.redact:redact",
        LORAPLEX_S3_SOURCES='["s3://adapters/{tenant}"]',
        HF_ENDPOINT=hub.url,
        LORAPLEX_OTLP_ENDPOINT=traces.url,
        LORAPLEX_TRACE_SAMPLE="1",
        OTEL_BSP_SCHEDULE_DELAY="200",
        **s3,
    )
    up = running.loraplex("up", "--detach", "--no-demo")
    assert up.returncode == 0, up.stderr + up.stdout
    for repo in ("pirate", "json"):
        added = running.loraplex("adapters", "add", repo, str(ADAPTERS / repo))
        assert added.stdout.strip() == f"{repo}/1", added.stderr
    running.deploy("chat")
    yield running
    down = running.loraplex("down")
    assert down.returncode == 0, down.stderr
    left = [p for p in psutil.process_iter() if _belongs(p, running.home)]
    assert not left, "`down` left processes behind"


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("LORAPLEX_HOME") == str(home)
    except psutil.Error:
        return False
