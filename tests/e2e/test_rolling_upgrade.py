"""From the release before to this one, process by process, while clients are answered: none loses
its request or gets another text. Both run from their own checkout."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from httpx_sse import SSEError, connect_sse

from kernels.cpu.build import library
from loraplex.embedded.ports import free_port
from loraplex.embedded.valkey import find_server, write_config
from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import REPOSITORY
from tests.e2e.running import answers, until

pytestmark = pytest.mark.e2e

PREVIOUS = "1f27cd2"  # the release before this one
KEY = "pb_rolling-upgrade"
PROMPTS = ("One, two, three", "Once upon a time", "The capital of France is")
CELERY = ("celery", "-A", "scheduler.tasks.app", "worker", "-Q", "tasks,imports,training")
POOL = ("--pool=threads", "--concurrency=2", "--without-gossip", "--without-mingle")


@dataclass
class Release:
    """Processes of one checkout, on a home and a queue that others use too."""

    checkout: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def run(self, *arguments: str) -> "subprocess.Popen[bytes]":
        own = {"PYTHONPATH": str(self.checkout), "LORAPLEX_PORT": str(self.port)}
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | self.settings | own,
            cwd=self.settings["LORAPLEX_HOME"],
            start_new_session=True,
        )

    def migrate(self) -> None:
        assert self.run("loraplex.database").wait(120) == 0

    def start(self, name: str, *arguments: str) -> None:
        self.processes[name] = self.run(*arguments)

    def end(self, name: str) -> None:
        """As a rolling update does; how long it takes is its own affair."""
        self.processes[name].send_signal(signal.SIGTERM)
        self.processes[name].wait(60)

    @property
    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=120)


@dataclass
class Client:
    """Streams one request after the other, and comes back to wherever the API is when it is cut."""

    prompt: str
    release: Release
    texts: list[str] = field(default_factory=list)
    cuts: int = 0

    def ask(self) -> str:
        body = {"model": "chat", "prompt": self.prompt, "max_tokens": 60, "temperature": 0}
        text, last, ended = "", "", False
        while not ended:
            headers = {"last-event-id": last, "x-grace-seconds": "60"} if last else {}
            with suppress(httpx.TransportError, SSEError):
                for event in self._events(body | {"stream": True, "ignore_eos": True}, headers):
                    last = event.id or last
                    if event.data == "[DONE]":
                        ended = True
                        break
                    chunk = json.loads(event.data)
                    assert "error" not in chunk, chunk
                    text += "".join(each["text"] for each in chunk["choices"])
            self.cuts += not ended
        return text

    def _events(self, body: dict[str, Any], headers: dict[str, str]) -> Iterator[Any]:
        with connect_sse(
            self.release.http, "POST", "/v1/completions", json=body, headers=headers
        ) as source:
            yield from source.iter_sse()


@pytest.fixture
def previous(tmp_path: Path) -> Iterator[Path]:
    """Its checkout."""
    folder = tmp_path / "previous"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    added = subprocess.run(
        [*git, "add", "--detach", str(folder), PREVIOUS], capture_output=True, check=False
    )
    if added.returncode:
        pytest.skip(f"this clone has no {PREVIOUS}")
    yield folder
    subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    port = free_port()
    config = write_config(home / "valkey", port, "secret")
    server = subprocess.Popen([str(find_server()), str(config)], stdout=subprocess.DEVNULL)
    yield f"redis://:secret@127.0.0.1:{port}/0"
    server.terminate()
    server.wait()


@pytest.fixture
def settings(tmp_path: Path, model_store: ModelStore, smollm2: Path) -> Iterator[dict[str, str]]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(model_store.root)
    with valkey(home) as url:
        yield {
            "LORAPLEX_HOME": str(home),
            "LORAPLEX_REDIS_URL": url,
            "LORAPLEX_API_KEY": KEY,
            "LORAPLEX_DTYPE": "float32",
            "LORAPLEX_DETERMINISTIC": str(library() is not None).lower(),
        }
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("LORAPLEX_HOME") == str(home):
                    process.kill()


def test_no_request_is_lost_while_each_process_is_replaced(
    previous: Path, settings: dict[str, str]
) -> None:
    old, new = Release(previous, settings), Release(REPOSITORY, settings)
    old.migrate()
    for name, command in (("api", ("api",)), ("scaler", ("scheduler",)), ("tasks", CELERY + POOL)):
        old.start(name, *command)
    until(lambda: answers(old.http), bool)
    body = {"name": "chat", "base_model": DEMO_MODEL, "min_replicas": 1, "cooldown_time": 3600}
    assert old.http.post("/api/v1/deployments", json=body).status_code == 201
    until(lambda: _ready(old), lambda ids: len(ids) == 1)
    undisturbed = {prompt: Client(prompt, old).ask() for prompt in PROMPTS}

    clients = [Client(prompt, old) for prompt in PROMPTS]
    with _asking(clients):
        new.migrate()
        new.start("api", "api")
        until(lambda: answers(new.http), bool)
        for client in clients:
            client.release = new
        old.end("api")
        new.start("scaler", "scheduler")
        old.end("scaler")
        new.start("tasks", *CELERY, *POOL)
        old.end("tasks")
        _some_more(clients)
        (replica,) = _ready(new)
        _process(replica, settings).send_signal(signal.SIGTERM)
        (another,) = until(lambda: _ready(new), lambda ids: len(ids) == 1 and ids != [replica])
        assert _process(another, settings).environ()["PYTHONPATH"] == str(REPOSITORY)
        _some_more(clients)
    for client in clients:
        assert set(client.texts) == {undisturbed[client.prompt]}
    assert sum(client.cuts for client in clients), "the update was noticed by none"


@contextmanager
def _asking(clients: list[Client]) -> Iterator[None]:
    """They ask on until the end of the block; what they have begun is finished."""
    enough = threading.Event()

    def ask(client: Client) -> None:
        while not enough.is_set():
            client.texts.append(client.ask())

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def _some_more(clients: list[Client]) -> None:
    before = [len(client.texts) for client in clients]
    until(
        lambda: [len(client.texts) for client in clients],
        lambda now: all(n >= b + 2 for n, b in zip(now, before, strict=True)),
    )


def _ready(release: Release) -> list[str]:
    deployment = release.http.get("/api/v1/deployments/chat").json()
    return [each["id"] for each in deployment["replicas"] if each["phase"] == "ready"]


def _process(replica: str, settings: dict[str, str]) -> psutil.Process:
    file = Path(settings["LORAPLEX_HOME"]) / "replicas" / f"{replica}.json"
    return psutil.Process(json.loads(file.read_text())["pid"])
