"""The platform over a Redis Cluster of three servers, its tasks on a Redis that is none."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx_sse import connect_sse

from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import ADAPTERS, REPOSITORY
from tests.e2e.by_hand import KEY, Release, a_home
from tests.e2e.running import Platform, until
from tests.valkey_servers import cluster, server

pytestmark = pytest.mark.e2e


@pytest.fixture
def platform(tmp_path: Path, model_store: ModelStore, smollm2: Path) -> Iterator[Release]:
    with (
        a_home(tmp_path, model_store) as settings,
        cluster(tmp_path / "cluster") as url,
        server(tmp_path / "valkey") as tasks,
    ):
        queues = {"LORAPLEX_REDIS_URL": url, "LORAPLEX_TASKS_REDIS_URL": tasks}
        running = Release(REPOSITORY, settings | queues)
        running.start_all()
        yield running


def _stream(platform: Release, model: str, kill: str = "") -> str:
    """A text; its replica dies after some tokens of it."""
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 80, "temperature": 0}
    text = ""
    with connect_sse(
        platform.http, "POST", "/v1/completions", json=body | {"stream": True, "ignore_eos": True}
    ) as source:
        for count, event in enumerate(source.iter_sse()):
            if event.data != "[DONE]":
                chunk = json.loads(event.data)
                assert "error" not in chunk, chunk
                text += "".join(each["text"] for each in chunk["choices"])
            if kill and count == 10:
                platform.replica_process(kill).kill()
    return text


def test_deployments_on_different_servers_serve_outlive_replicas_and_end(
    platform: Release,
) -> None:
    http = platform.http
    url = str(http.base_url)
    cli = Platform(
        Path(platform.settings["LORAPLEX_HOME"]), {"LORAPLEX_URL": url, "LORAPLEX_API_KEY": KEY}
    )
    added = cli.loraplex("adapters", "add", "pirate", str(ADAPTERS / "pirate"))
    assert added.stdout.strip() == "pirate/1", added.stderr
    names = ("one", "two", "three")  # lanes of different slots
    for name in names:
        body = {"name": name, "base_model": DEMO_MODEL, "cooldown_time": 3600}
        assert http.post("/api/v1/deployments", json=body).status_code == 201
    texts = {name: _stream(platform, f"{name}:pirate/1") for name in names}
    assert len(set(texts.values())) == 1
    (replica,) = platform.ready("two")
    assert _stream(platform, "two:pirate/1", kill=replica) == texts["two"]
    (another,) = until(lambda: platform.ready("two"), lambda ids: len(ids) == 1)
    assert another != replica
    for name in names:
        assert http.delete(f"/api/v1/deployments/{name}").status_code == 200
    replicas = Path(platform.settings["LORAPLEX_HOME"]) / "replicas"
    until(lambda: list(replicas.glob("rep-*.json")), lambda found: not found)
    usage = until(
        lambda: http.get("/api/v1/usage").json()["data"],
        lambda rows: sum(row["answers"] for row in rows) == 4,
    )
    assert sum(row["completion_tokens"] for row in usage) == 4 * 80
