"""What every driver promises, on all of them: real processes, real containers, and the fake."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from loraplex.ec2_settings import Ec2Pool, Ec2Settings
from loraplex.kubernetes_settings import KubernetesSettings
from loraplex.settings import ScalerSettings, Settings
from scheduler.drivers.base import Driver, ReplicaSpec, Running
from scheduler.drivers.docker import DockerDriver
from scheduler.drivers.ec2 import Ec2Driver
from scheduler.drivers.fake import HANGS, FakeDriver, FakeReplica, StartPlan
from scheduler.drivers.kubernetes import KubernetesDriver
from scheduler.drivers.process import ProcessDriver
from tests.e2e.running import until
from tests.fakes.ec2 import Ec2
from tests.fakes.ec2 import ec2 as ec2_region
from tests.fakes.kubernetes import Cluster, kubernetes
from tests.integration.docker_engine import docker_settings

POD = "spec: {containers: [{name: replica, image: loraplex/gpu_worker}]}"
NOBODY = "redis://127.0.0.1:1/0"
Drivers = Callable[[str], Driver]
"""Makes a driver of the named installation; each call is what another process would have."""


@pytest.fixture(params=["process", "fake", "docker", "ec2", "kubernetes"])
def drivers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Drivers]:
    monkeypatch.setenv("LORAPLEX_REDIS_URL", NOBODY)  # a replica ends by itself
    with ExitStack() as stack:
        yield _makers(tmp_path, stack, monkeypatch)[request.param]


def _makers(home: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, Drivers]:
    machines: dict[str, dict[str, FakeReplica]] = {}

    def process(installation: str) -> Driver:
        driver = ProcessDriver(Settings(home=home / installation))
        stack.callback(lambda: [driver.stop(r.replica) for r in driver.list()])
        return driver

    def fake(installation: str) -> Driver:
        return FakeDriver(time.monotonic, _planned, machines.setdefault(installation, {}))

    def docker(installation: str) -> Driver:
        return DockerDriver(
            ScalerSettings(home=home), stack.enter_context(docker_settings(home, installation))
        )

    def ec2(installation: str) -> Driver:
        if not regions:
            regions.append(stack.enter_context(ec2_region(home)))
            monkeypatch.setattr("scheduler.drivers.ec2._LOOK_EACH_S", 0.0)
            for name, value in regions[0].environment.items():
                monkeypatch.setenv(name, value)
        (region,) = regions
        pool = Ec2Pool(template=region.template, types=["g6.xlarge"], subnets=region.subnets)
        mine = f"{home.name}-{installation}"
        return Ec2Driver(Ec2Settings(pools={"local": pool}, installation=mine), {})

    def pods(installation: str) -> Driver:
        if not clusters:
            clusters.append(stack.enter_context(kubernetes(home)))
            monkeypatch.setenv("KUBECONFIG", clusters[0].environment["KUBECONFIG"])
            (home / "local.yaml").write_text(POD)
        return KubernetesDriver(KubernetesSettings(templates=home, installation=installation))

    regions: list[Ec2] = []
    clusters: list[Cluster] = []
    return {"process": process, "fake": fake, "docker": docker, "ec2": ec2, "kubernetes": pods}


def _planned(spec: ReplicaSpec) -> StartPlan:
    """As a real replica would do."""
    if spec.settings.get("LORAPLEX_REDIS_URL", NOBODY) != NOBODY:
        return HANGS
    words = spec.settings.get("LORAPLEX_LEASE_S", "Connection refused")
    return StartPlan(fails_after_s=0.3, log_tail=words)


def _spec(settings: dict[str, str] | None = None) -> ReplicaSpec:
    return ReplicaSpec(f"rep-{secrets.token_hex(4)}", "org/model#dep-1", settings=settings or {})


def _processes(replica: str) -> int:
    """A container's processes are seen from its machine too."""
    mine = (p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"]))
    return sum(replica in cmdline for cmdline in mine)


def _ended(driver: Driver) -> Running:
    (seen,) = until(driver.list, lambda found: not any(r.alive for r in found))
    return seen


def test_a_replica_is_seen_by_others_until_it_ends_and_then_with_its_log(drivers: Drivers) -> None:
    spec = _spec()
    drivers("one").start(spec)
    seen = _ended(drivers("one"))
    assert seen.replica == spec.id
    assert "Connection refused" in seen.log_tail
    assert len(seen.log_tail) <= 2000


def test_started_twice_is_started_once(drivers: Drivers, silent_redis: dict[str, str]) -> None:
    spec = _spec(silent_redis)
    starter, other = drivers("one"), drivers("one")
    for driver in (starter, starter, other):
        driver.start(spec)
    assert other.list() == [Running(spec.id, alive=True)]
    assert _processes(spec.id) <= 1  # the fake has none


def test_started_by_many_at_once_is_started_once(
    drivers: Drivers, silent_redis: dict[str, str]
) -> None:
    spec = _spec(silent_redis)
    starters = [drivers("one") for _ in range(6)]
    with ThreadPoolExecutor(len(starters)) as pool:
        list(pool.map(lambda driver: driver.start(spec), starters))
    assert drivers("one").list() == [Running(spec.id, alive=True)]
    assert _processes(spec.id) <= 1


def test_what_has_ended_is_not_started_again_until_it_is_stopped(drivers: Drivers) -> None:
    spec = _spec()
    driver = drivers("one")
    driver.start(spec)
    ended = _ended(driver)
    driver.start(spec)
    assert driver.list() == [ended]
    driver.stop(spec.id)
    driver.start(spec)
    assert _ended(driver).replica == spec.id


def test_stop_ends_a_living_replica_and_is_safe_twice(
    drivers: Drivers, silent_redis: dict[str, str]
) -> None:
    spec = _spec(silent_redis)
    drivers("one").start(spec)
    other = drivers("one")
    other.stop(spec.id)
    assert other.list() == []
    assert _processes(spec.id) == 0
    other.stop(spec.id)


def test_stop_of_what_was_never_started_does_nothing(drivers: Drivers) -> None:
    driver = drivers("one")
    driver.stop("rep-never")
    assert driver.list() == []


def test_installations_do_not_see_or_stop_each_others_replicas(
    drivers: Drivers, silent_redis: dict[str, str]
) -> None:
    spec = _spec(silent_redis)
    one, two = drivers("one"), drivers("two")
    one.start(spec)
    assert two.list() == []
    two.stop(spec.id)
    assert one.list() == [Running(spec.id, alive=True)]


def test_settings_of_its_own_reach_a_replica(drivers: Drivers) -> None:
    driver = drivers("one")
    driver.start(_spec({"LORAPLEX_LEASE_S": "half-a-minute"}))
    assert "half-a-minute" in _ended(driver).log_tail  # it says what is wrong with them
