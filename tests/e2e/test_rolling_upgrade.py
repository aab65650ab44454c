"""From the release before to this one, process by process, while clients are answered: none loses
its request or gets another text. Both run from their own checkout."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import SSEError, connect_sse

from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import REPOSITORY
from tests.e2e.by_hand import Release, a_home, text_of
from tests.e2e.running import answers, until
from tests.valkey_servers import server

pytestmark = pytest.mark.e2e

PREVIOUS = "1f27cd2"  # the release before this one
LONG_S = 20  # an answer that takes longer than an API process waits for it
PROMPTS = ("One, two, three", "Once upon a time", "The capital of France is")


@dataclass
class Client:
    """Streams one request after the other, and comes back to wherever the API is when it is cut."""

    prompt: str
    release: Release
    tokens: int = 60
    texts: list[str] = field(default_factory=list)
    cuts: int = 0
    received: int = 0  # characters of the present answer

    def ask(self) -> str:
        self.received = 0
        body = {"model": "chat", "prompt": self.prompt, "max_tokens": self.tokens, "temperature": 0}
        text, last, ended = "", "", False
        while not ended:
            headers = {"last-event-id": last, "x-grace-seconds": "60"} if last else {}
            with suppress(httpx.TransportError, SSEError):
                for event in self._events(body | {"stream": True, "ignore_eos": True}, headers):
                    last = event.id or last
                    if event.data == "[DONE]":
                        ended = True
                        break
                    text += text_of(event.data)
                    self.received = len(text)
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


@pytest.fixture
def settings(tmp_path: Path, model_store: ModelStore, smollm2: Path) -> Iterator[dict[str, str]]:
    with a_home(tmp_path, model_store) as settings, server(tmp_path / "valkey") as url:
        yield settings | {"LORAPLEX_REDIS_URL": url}


@pytest.mark.timeout(900)
def test_no_request_is_lost_while_each_process_is_replaced(
    previous: Path, settings: dict[str, str]
) -> None:
    old, new = Release(previous, settings), Release(REPOSITORY, settings)
    old.start_all()
    body = {"name": "chat", "base_model": DEMO_MODEL, "min_replicas": 1, "cooldown_time": 3600}
    assert old.http.post("/api/v1/deployments", json=body).status_code == 201
    until(lambda: old.ready("chat"), lambda ids: len(ids) == 1)
    begun = time.monotonic()
    undisturbed = {prompt: Client(prompt, old).ask() for prompt in PROMPTS}
    tokens_per_s = 60 * len(PROMPTS) / (time.monotonic() - begun)
    slow = Client(PROMPTS[0], old, min(4000, round(LONG_S * tokens_per_s)))
    whole = slow.ask()

    clients = [Client(prompt, old) for prompt in PROMPTS]
    with _asking([*clients, slow]):
        new.migrate()
        new.start("api")
        until(lambda: answers(new.http), bool)
        for client in (*clients, slow):
            client.release = new
        # So that it has more left than the seconds that an API process waits for its streams.
        until(lambda: slow.received, lambda some: 0 < some < len(whole) // 4)
        old.end("api")
        new.start("scaler")
        old.end("scaler")
        new.start("tasks")
        old.end("tasks")
        _some_more(clients)
        (replica,) = new.ready("chat")
        new.replica_process(replica).send_signal(signal.SIGTERM)
        (another,) = until(
            lambda: new.ready("chat"), lambda ids: len(ids) == 1 and ids != [replica], 240
        )
        assert new.replica_process(another).environ()["PYTHONPATH"] == str(REPOSITORY)
        _some_more(clients)
    for client in clients:
        assert set(client.texts) == {undisturbed[client.prompt]}
    assert set(slow.texts) == {whole}
    assert slow.cuts, "the update was not noticed"


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
