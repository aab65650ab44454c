"""Why a replica doesn't start is told where people look, while it should start, and afterwards."""

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from loraplex.apikeys import FIRST_TENANT
from loraplex.entities import Deployment, Replica, Revision
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from scheduler.drivers.base import ReplicaSpec
from scheduler.facts import ReplicaFacts
from scheduler.judge import Limits, judge
from scheduler.tasks import replicas

NO_ROOM = "EC2 pool 'l4' has no room."


class Driver:
    """As full as a cloud."""

    full = True

    def start(self, spec: ReplicaSpec) -> None:
        if self.full:
            raise OSError(NO_ROOM)


@pytest.fixture
def starting(database: Engine) -> Engine:
    """With a replica that should start."""
    bounds = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1, "scale_up_threshold": 1}
    names = {"id": "dep-1", "name": "d", "base_model": "m", "status": "standby"}
    with Session(database) as session:
        session.add(Deployment(tenant_id=FIRST_TENANT, **names, **bounds))
        session.flush()
        session.add(Revision(deployment_id="dep-1", number=1, base_model="m"))
        session.add(Replica(id="rep-1", deployment_id="dep-1"))
        session.commit()
    return database


def test_the_latest_trouble_stands_in_the_row(
    starting: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    monkeypatch.setattr(replicas, "_driver", driver)
    monkeypatch.setattr(replicas, "_engine", starting)

    def reason() -> str:
        with Session(starting) as session:
            return session.get_one(Replica, "rep-1").reason

    with pytest.raises(OSError, match="no room"):
        replicas.start_replica.run("rep-1")
    assert reason() == NO_ROOM
    driver.full = False
    replicas.start_replica.run("rep-1")
    assert reason() == ""


def test_a_start_that_took_too_long_says_what_stood_in_its_way() -> None:
    facts = ReplicaFacts(
        *("rep-1", Lane("m", "dep-1"), 1, ReplicaState.STARTING, "l4", 0, 0.0, 0.0),
        trouble=NO_ROOM,
    )
    verdict = judge(facts, 301.0, 301.0, Limits(start_s=300.0), driver_heard=True)
    assert verdict is not None
    assert verdict.reason == f"It was not ready after 300 s. {NO_ROOM}"
