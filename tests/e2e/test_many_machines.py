"""Replicas on machines that share no disk: their weights come from a bucket, a lease in the queue
says who lives, and what a machine that is cut off had begun is finished by another."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from loraplex.store.models import DEMO_MODEL, ModelStore
from tests.conftest import ADAPTERS, REPOSITORY
from tests.e2e.by_hand import KEY, Release, a_home
from tests.e2e.running import Platform, answers, until
from tests.fakes.aws import client
from tests.fakes.ec2 import Ec2
from tests.fakes.ec2 import ec2 as ec2_region
from tests.fakes.s3 import s3 as an_s3
from tests.valkey_servers import server

pytestmark = pytest.mark.e2e

HOSTS = ("zone-a", "zone-b")
TOKENS = 400  # most of them are left when a machine is cut off
OF_REPLICAS = ("LORAPLEX_REDIS_URL", "LORAPLEX_MODEL_STORE", "LORAPLEX_ADAPTER_STORE")
OF_REPLICAS += ("LORAPLEX_DTYPE", "LORAPLEX_DETERMINISTIC")


@dataclass
class Cell:
    """Two API processes, one of which knows nothing of the other."""

    first: Release
    second: Release
    region: Ec2
    folder: Path

    def machine(self, replica: str) -> psutil.Process:
        """The process that is alone on it."""
        (found,) = (
            each
            for each in psutil.process_iter(["cmdline"])
            if (each.info["cmdline"] or [])[1:5] == ["-m", "gpu_worker", "--replica", replica]
        )
        return found


@pytest.fixture
def cell(tmp_path: Path, model_store: ModelStore, smollm2: Path) -> Iterator[Cell]:
    machines = tmp_path / "machines"
    machines.mkdir()
    with (
        a_home(tmp_path, model_store) as settings,
        server(tmp_path / "valkey") as url,
        ec2_region(machines) as region,
        an_s3() as buckets,
    ):
        client("s3", buckets).create_bucket(Bucket="weights")
        account = region.environment | {"AWS_ENDPOINT_URL_S3": buckets["AWS_ENDPOINT_URL"]}
        pool = {"template": region.template, "types": ["g6.xlarge"], "subnets": region.subnets}
        settings |= account | {
            "LORAPLEX_REDIS_URL": url,
            "LORAPLEX_MODEL_STORE": "s3://weights/models",
            "LORAPLEX_ADAPTER_STORE": "s3://weights/adapters",
            "LORAPLEX_DRIVER": "ec2",
            "LORAPLEX_EC2_POOLS": json.dumps(dict.fromkeys(HOSTS, pool)),
            "LORAPLEX_FLEET": json.dumps(dict.fromkeys(HOSTS, 1)),
        }
        shared = account | {name: settings[name] for name in OF_REPLICAS}
        lines = [f"{name}={value}" for name, value in shared.items()]
        (machines / "loraplex.env").write_text("\n".join(lines) + "\n")
        first, second = Release(REPOSITORY, settings), Release(REPOSITORY, settings)
        first.start_all()
        second.start("api")
        until(lambda: answers(second.http), bool)
        yield Cell(first, second, region, machines)


@pytest.mark.timeout(900)
def test_what_a_machine_that_is_cut_off_had_begun_is_finished_by_another(
    cell: Cell, smollm2: Path
) -> None:
    where = {"LORAPLEX_URL": str(cell.second.http.base_url), "LORAPLEX_API_KEY": KEY}
    cli = Platform(cell.folder, where)
    added = cli.loraplex("adapters", "add", "pirate", str(ADAPTERS / "pirate"))
    assert added.stdout.strip() == "pirate/1", added.stderr
    body = {"name": "chat", "base_model": DEMO_MODEL, "cooldown_time": 3600}
    body |= {"min_replicas": 2, "max_replicas": 2}
    assert cell.first.http.post("/api/v1/deployments", json=body).status_code == 201
    until(lambda: cell.first.ready("chat"), lambda ids: len(ids) == 2, 180)
    copies = list(cell.folder.glob(f"i-*/model-copies/{smollm2.name}@*/model.safetensors"))
    assert len(copies) == 2  # each on its own disk
    assert {copy.read_bytes() for copy in copies} == {(smollm2 / copies[0].name).read_bytes()}
    whole = cell.first.text("chat:pirate/1", TOKENS)
    assert cell.second.text("chat:pirate/1", TOKENS) == whole

    lost: list[psutil.Process] = []

    def cut_off() -> None:
        """The machine that does the work, as long as its lease and longer."""
        (busy,) = (each["id"] for each in replicas_of(cell) if each["running"])
        lost.append(cell.machine(busy))
        lost[0].suspend()

    assert cell.second.text("chat:pirate/1", TOKENS, meanwhile=cut_off) == whole
    until(lost[0].is_running, lambda runs: not runs, 180)  # its place is given to another
    until(lambda: cell.first.ready("chat"), lambda ids: len(ids) == 2, 180)
    assert cell.first.text("chat:pirate/1", TOKENS) == whole


def replicas_of(cell: Cell) -> list[dict[str, object]]:
    found: list[dict[str, object]] = cell.first.http.get("/api/v1/deployments/chat").json()[
        "replicas"
    ]
    return found
