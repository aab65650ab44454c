"""What is the Docker driver's alone: what a container may do, and what goes wrong with engines."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from loraplex.docker_settings import DockerSettings
from loraplex.settings import ScalerSettings
from scheduler.drivers.base import ReplicaSpec, Running
from scheduler.drivers.docker import DockerDriver
from tests.integration.docker_engine import docker_settings

Make = Callable[..., DockerDriver]
GONE = {"gpu-2": "tcp://127.0.0.1:1"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerSettings]:
    monkeypatch.setenv("LORAPLEX_DTYPE", "float32")
    monkeypatch.setenv("LORAPLEX_DATABASE_URL", "postgresql://user:secret@db/loraplex")
    monkeypatch.setenv("LORAPLEX_SECRET_KEY", "secretsecretsecretsecretsecretsecretsecret0=")
    monkeypatch.setenv("LORAPLEX_PRICES", '{"*": 0.5}')
    with docker_settings(tmp_path, "one") as settings:
        yield settings


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`docker`, changed."""
    return lambda docker, **changes: DockerDriver(
        ScalerSettings(home=tmp_path), docker.model_copy(update=changes)
    )


@pytest.fixture
def engine(settings: DockerSettings) -> DockerClient:
    return DockerClient.from_env()


@pytest.fixture
def spec() -> ReplicaSpec:
    return ReplicaSpec(f"rep-{secrets.token_hex(4)}", "org/model#dep-1")


def test_a_start_cut_off_after_creating_is_finished_by_the_next(
    settings: DockerSettings, make: Make, engine: DockerClient, spec: ReplicaSpec
) -> None:
    labels = {"loraplex.home": settings.installation, "loraplex.replica": spec.id}
    engine.containers.create(
        settings.image, ["sleep", "60"], name=f"loraplex-{spec.id}", labels=labels
    )
    driver = make(settings)
    assert driver.list() == []  # so it is asked for again
    driver.start(spec)
    assert driver.list() == [Running(spec.id, alive=True)]
    driver.stop(spec.id)
    assert driver.list() == []


def test_a_container_may_do_no_more_than_a_replica_needs(
    settings: DockerSettings, make: Make, engine: DockerClient, spec: ReplicaSpec
) -> None:
    make(settings, memory_gib=0.5).start(spec)
    facts = engine.containers.get(f"loraplex-{spec.id}").attrs
    host, config = facts["HostConfig"], facts["Config"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 2**29
    assert config["User"] == "loraplex"
    assert [mount["RW"] for mount in facts["Mounts"]] == [False, False]
    assert {"LORAPLEX_DTYPE=float32", 'LORAPLEX_PRICES={"*": 0.5}'} <= set(config["Env"])
    assert "secret" not in str(config["Env"])


def test_a_missing_image_is_named(settings: DockerSettings, make: Make, spec: ReplicaSpec) -> None:
    driver = make(settings, image="loraplex/none")
    with pytest.raises(OSError, match="no image 'loraplex/none'"):
        driver.start(spec)
    assert driver.list() == []


def test_a_gpu_that_the_engine_cannot_give_is_told(
    settings: DockerSettings, make: Make, engine: DockerClient, spec: ReplicaSpec
) -> None:
    if "nvidia" in engine.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    with pytest.raises(OSError, match="device driver"):
        make(settings, gpus=True).start(spec)


def test_a_host_that_does_not_answer_hides_no_replica(
    settings: DockerSettings, make: Make, spec: ReplicaSpec
) -> None:
    """A list without its replicas would say that they are gone. What can be done is done."""
    driver = make(settings, hosts={"local": ""} | GONE)
    driver.start(spec)
    with pytest.raises(OSError, match=r"'gpu-2' does not answer at tcp://127\.0\.0\.1:1"):
        driver.list()
    driver.stop(spec.id)
    assert make(settings).list() == []
    with pytest.raises(OSError, match="gpu-2"):
        driver.stop("rep-elsewhere")  # it may be there


def test_without_an_engine_the_error_says_what_to_do(make: Make, spec: ReplicaSpec) -> None:
    driver = make(DockerSettings(hosts=GONE))
    for call in (driver.list, lambda: driver.stop("rep-1")):
        with pytest.raises(OSError, match="LORAPLEX_DOCKER_HOSTS"):
            call()
    with pytest.raises(OSError, match="no Docker host 'local'; LORAPLEX_DOCKER_HOSTS has: gpu-2"):
        driver.start(spec)
