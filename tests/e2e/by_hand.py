"""The platform's processes, started one by one as on many machines: of any checkout and queue."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from httpx_sse import connect_sse

from kernels.cpu.build import library
from loraplex.embedded.ports import free_port
from loraplex.store.models import ModelStore
from tests.e2e.running import answers, until

KEY = "pb_by-hand"
_CELERY = ("celery", "-A", "scheduler.tasks.app", "worker", "-Q", "tasks,imports,training")
_POOL = ("--pool=threads", "--concurrency=2", "--without-gossip", "--without-mingle")
COMMANDS = {"api": ("api",), "scaler": ("scheduler",), "tasks": _CELERY + _POOL}


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

    def start(self, name: str) -> None:
        self.processes[name] = self.run(*COMMANDS[name])

    def start_all(self) -> None:
        self.migrate()
        for name in COMMANDS:
            self.start(name)
        until(lambda: answers(self.http), bool)

    def end(self, name: str) -> None:
        """As a rolling update does; how long it takes is its own affair."""
        self.processes[name].send_signal(signal.SIGTERM)
        self.processes[name].wait(60)

    def ready(self, deployment: str) -> list[str]:
        """Its replicas that serve."""
        found = self.http.get(f"/api/v1/deployments/{deployment}").json()
        return [each["id"] for each in found["replicas"] if each["phase"] == "ready"]

    def replica_process(self, replica: str) -> psutil.Process:
        file = Path(self.settings["LORAPLEX_HOME"]) / "replicas" / f"{replica}.json"
        return psutil.Process(json.loads(file.read_text())["pid"])

    def text(
        self, model: str, tokens: int = 80, meanwhile: Callable[[], object] = lambda: None
    ) -> str:
        """Streamed; `meanwhile` something happens to what makes it."""
        body = {"model": model, "prompt": "Once upon a time", "temperature": 0, "stream": True}
        body |= {"max_tokens": tokens, "ignore_eos": True}
        text = ""
        with connect_sse(self.http, "POST", "/v1/completions", json=body) as source:
            for count, event in enumerate(source.iter_sse()):
                text += text_of(event.data)
                if count == 10:
                    meanwhile()
        assert count > 10, "nothing happened meanwhile"
        return text

    @property
    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=120)


def text_of(data: str) -> str:
    """Of an event of a completion."""
    if data == "[DONE]":
        return ""
    chunk = json.loads(data)
    assert "error" not in chunk, chunk
    return "".join(each["text"] for each in chunk["choices"])


@contextmanager
def a_home(folder: Path, models: ModelStore) -> Iterator[dict[str, str]]:
    """Settings of a platform on SQLite without a queue; what it started is killed in the end."""
    home = folder / "home"
    home.mkdir()
    (home / "models").symlink_to(models.root)
    yield {
        "LORAPLEX_HOME": str(home),
        "LORAPLEX_API_KEY": KEY,
        "LORAPLEX_DTYPE": "float32",
        "LORAPLEX_DETERMINISTIC": str(library() is not None).lower(),
    }
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("LORAPLEX_HOME") == str(home):
                process.kill()
