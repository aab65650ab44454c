"""The platform over a Redis Cluster of three servers, its tasks on a Redis that is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import ADAPTERS, REPOSITORY
from tests.e2e.by_hand import KEY, Release, a_home
from tests.e2e.running import Platform, until
from tests.valkey_servers import cluster, server

TOKENS = 200  # some are left when its replica is killed

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
    texts = {name: platform.text(f"{name}:pirate/1", TOKENS) for name in names}
    assert len(set(texts.values())) == 1
    (replica,) = platform.ready("two")
    kill = platform.replica_process(replica).kill
    assert platform.text("two:pirate/1", TOKENS, meanwhile=kill) == texts["two"]
    until(lambda: platform.ready("two"), lambda ids: len(ids) == 1 and ids != [replica])
    for name in names:
        assert http.delete(f"/api/v1/deployments/{name}").status_code == 200
    replicas = Path(platform.settings["LORAPLEX_HOME"]) / "replicas"
    until(lambda: list(replicas.glob("rep-*.json")), lambda found: not found)
    usage = until(
        lambda: http.get("/api/v1/usage").json()["data"],
        lambda rows: sum(row["answers"] for row in rows) == 4,
    )
    assert sum(row["completion_tokens"] for row in usage) == 4 * TOKENS
