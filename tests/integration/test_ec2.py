"""What EC2 does to those who start instances, and what the driver makes of it."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from loraplex.ec2_settings import Ec2Pool, Ec2Settings
from scheduler.drivers import ec2 as module
from scheduler.drivers import ec2_tags
from scheduler.drivers.base import ReplicaSpec, Running
from scheduler.drivers.ec2 import Ec2Driver
from tests.e2e.running import until
from tests.fakes.ec2 import Ec2
from tests.fakes.ec2 import ec2 as ec2_region

TYPES = ["g6.xlarge", "g5.xlarge"]
Make = Callable[..., Ec2Driver]


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2]:
    with ec2_region(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(module, "_LOOK_EACH_S", 0.0)
        yield running


@pytest.fixture
def make(region: Ec2, tmp_path: Path) -> Make:
    def driver(
        spot: bool = False,
        warm: int = 0,
        prices: dict[str, float] | None = None,
        **settings: object,
    ) -> Ec2Driver:
        where = {"template": region.template, "types": TYPES, "subnets": region.subnets}
        pool = Ec2Pool(**where, spot=spot, warm=warm)
        given = {"installation": tmp_path.name, "pools": {"l4": pool}} | settings
        return Ec2Driver(Ec2Settings.model_validate(given), prices or {})

    return driver


@pytest.fixture
def spec(region: Ec2) -> ReplicaSpec:
    """Of a replica whose instance never boots: EC2 is all that is looked at."""
    found = ReplicaSpec(f"rep-{secrets.token_hex(4)}", "org/model#dep-1", host="l4")
    region.hang.add(found.id)
    return found


def test_where_a_type_has_no_room_the_next_one_is_taken(
    region: Ec2, make: Make, spec: ReplicaSpec
) -> None:
    region.full = {TYPES[0]}
    make().start(spec)
    assert region.types() == [TYPES[1]]


def test_no_room_anywhere_is_told_and_tried_again_later(
    region: Ec2, make: Make, spec: ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.drivers.ec2_fleet.FAILURE_KEPT_S", 1)
    region.full = set(TYPES)
    driver = make()
    with pytest.raises(OSError, match=r"'l4' has no room.*InsufficientInstanceCapacity"):
        driver.start(spec)
    assert driver.list() == []
    region.full = set()

    def started() -> bool:
        try:
            driver.start(spec)
        except OSError:  # EC2 remembers the token's failure
            return False
        return True

    until(started, bool)
    assert driver.list() == [Running(spec.id, alive=True)]


def test_throttling_is_waited_for_and_then_told(region: Ec2, make: Make, spec: ReplicaSpec) -> None:
    region.throttle = 2
    make().start(spec)
    assert len(region.types()) == 1
    region.throttle = 100
    with pytest.raises(OSError, match=r"RequestLimitExceeded.*tried again"):
        make().list()
    region.throttle = 0


def test_one_that_never_boots_is_listed_and_stopped(make: Make, spec: ReplicaSpec) -> None:
    driver = make()
    driver.start(spec)
    assert driver.list() == [Running(spec.id, alive=True)]
    driver.stop(spec.id)
    assert driver.list() == []


def test_no_more_instances_than_the_guards_allow(region: Ec2, make: Make) -> None:
    specs = [ReplicaSpec(f"rep-{n}-{secrets.token_hex(4)}", "m#d", host="l4") for n in range(3)]
    region.hang.update(spec.id for spec in specs)
    first, second, third = specs
    make().start(first)
    with pytest.raises(OSError, match="LORAPLEX_EC2_MAX_INSTANCES is 1"):
        make(max_instances=1).start(second)
    costly = make(max_cost_h=2.0, prices={"l4": 0.8})
    costly.start(second)
    with pytest.raises(OSError, match=r"2\.4 an hour: LORAPLEX_EC2_MAX_COST_H is 2"):
        costly.start(third)
    costly.start(second)  # what runs is not asked
    costly.stop(first.id)
    costly.start(third)
    assert len(region.types()) == 2


def test_of_twins_the_older_one_stays(region: Ec2, make: Make, spec: ReplicaSpec) -> None:
    driver = make()
    driver.start(spec)
    named = ec2_tags.of(spec, driver._settings.installation)
    boto3.client("ec2").run_instances(
        MinCount=1,
        MaxCount=1,
        LaunchTemplate={"LaunchTemplateId": region.template},
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in named.items()],
            }
        ],
    )
    assert len(region.types()) == 2
    assert driver.list() == [Running(spec.id, alive=True)]
    assert len(region.types()) == 1
    assert driver.list() == [Running(spec.id, alive=True)]


def waiting(region: Ec2) -> list[str]:
    """Ids of those that wait, stopped."""
    return [each.id for each in region.instances() if each.state == "stopped"]


def test_instances_that_wait_are_made_started_and_made_again(region: Ec2, make: Make) -> None:
    driver = make(warm=1, max_instances=2)
    assert driver.list() == []
    (first,) = until(lambda: driver.list() or waiting(region), lambda found: len(found) == 1)
    assert driver.list() == []  # and nothing more is made
    assert waiting(region) == [first] and not region.types()
    spec = ReplicaSpec(f"rep-{secrets.token_hex(4)}", "org/model#dep-1", host="l4")
    region.hang.add(spec.id)
    asked = len(region.calls)
    driver.start(spec)
    driver.start(spec)
    assert "CreateFleet" not in region.calls[asked:]
    assert driver.list() == [Running(spec.id, alive=True)]
    (started,) = (each for each in region.instances() if each.id == first)
    assert started.state == "running"
    assert started.instance_initiated_shutdown_behavior == "terminate"
    (second,) = until(lambda: driver.list() and waiting(region), bool)
    assert second != first
    assert make(warm=0).list() == [Running(spec.id, alive=True)]  # no longer wanted
    assert not waiting(region)
    driver.stop(spec.id)
    assert region.types() == []


def test_two_that_start_replicas_at_once_take_different_ones(region: Ec2, make: Make) -> None:
    drivers = [make(warm=2), make(warm=2)]
    until(lambda: drivers[0].list() or waiting(region), lambda found: len(found) == 2)
    known = drivers[0]._instances()
    specs = [ReplicaSpec(f"rep-{n}-{secrets.token_hex(4)}", "m#d", host="l4") for n in range(3)]
    region.hang.update(spec.id for spec in specs)
    for driver, spec in zip((*drivers, drivers[0]), specs, strict=True):
        named = ec2_tags.of(spec, driver._settings.installation)
        # What each of them saw: both waited.
        assert driver._warm.start("l4", named, known) is (spec is not specs[2])
    found = {each.replica for each in drivers[0].list()}
    assert found == {spec.id for spec in specs[:2]}


def test_an_interrupted_spot_instance_leaves_by_itself(region: Ec2, make: Make) -> None:
    spec = ReplicaSpec(
        f"rep-{secrets.token_hex(4)}",
        "org/model#dep-1",
        host="l4",
        settings={"LORAPLEX_REDIS_URL": "redis://10.255.255.1:6379/0"},
    )
    driver = make(spot=True)
    region.interrupted.add(spec.id)
    driver.start(spec)
    assert [each.lifecycle for each in region.instances() if each.state == "running"] == ["spot"]
    (seen,) = until(driver.list, lambda found: not any(each.alive for each in found))
    assert "Spot: it is taken." in seen.log_tail


def test_long_settings_go_over_several_tags() -> None:
    settings = {"LORAPLEX_PRELOAD": str({f"adapter/{n}": "a" * 64 for n in range(40)})}
    named = ec2_tags.of(ReplicaSpec("rep-1", "m#d", settings=settings), "x")
    assert sum("settings-" in name for name in named) > 10
    assert max(map(len, named.values())) <= 256
    too_long = {"LORAPLEX_PRELOAD": "a" * 12000}
    with pytest.raises(OSError, match="don't fit"):
        ec2_tags.of(ReplicaSpec("rep-1", "m#d", settings=too_long), "x")


def test_an_unknown_pool_and_an_absent_ec2_are_told(
    make: Make, spec: ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match=r"no EC2 pool 'h100'; LORAPLEX_EC2_POOLS has: l4\."):
        make().start(ReplicaSpec("rep-1", "m#d", host="h100"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="EC2 does not answer"):
        make().list()
