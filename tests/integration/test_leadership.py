"""One leads; what a deposed leader does late is refused, by the database and by every lane."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis as redis_module
from sqlalchemy import Engine
from sqlmodel import Session, select

from loraplex.broker.interface import Deposed
from loraplex.broker.scaler import FORGOTTEN_AFTER_S, ScalerBroker
from loraplex.broker.worker import WorkerBroker
from loraplex.database import connect, migrate
from loraplex.entities import (
    Batch,
    ChartPoint,
    Deployment,
    DeploymentEvent,
    Evaluation,
    Replica,
    Revision,
    Tenant,
    TrainingJob,
)
from loraplex.keys import BUS_PREFIX, EPOCH, LEADER, Lane
from loraplex.messages import ReplicaReport
from loraplex.replica_state import ReplicaState
from loraplex.status import Event, Status
from scheduler.actions import FailedStarts, Intend
from scheduler.charts import Charts
from scheduler.claim import Claim
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.fake import FakeDriver
from scheduler.event_relay import EXCHANGE, EventRelay
from scheduler.observe import observe, training_facts
from scheduler.placement import Place
from scheduler.rows import EVENTS_KEPT_S, SqlRows
from scheduler.trainings import TrainingFacts
from scheduler.webhooks import Webhooks
from tests.unit.test_charts import replica, world

INTENT = Intend("rep-1-1", "dep-1", 1, 1, "local", 0)
LANE = Lane("m", "dep-1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    engine = connect(url)
    with Session(engine) as session:
        session.add(Tenant(id="t"))
        session.flush()
        bounds = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1, "scale_up_threshold": 1}
        session.add(
            Deployment(
                id="dep-1", tenant_id="t", name="d", base_model="m", status="standby", **bounds
            )
        )
        session.flush()
        session.add(Revision(deployment_id="dep-1", number=1, base_model="m"))
        session.commit()
    yield engine
    engine.dispose()


def rows(database: Engine, epoch: int) -> SqlRows:
    made = SqlRows(database)
    made.epoch, made.now = epoch, 1000.0
    return made


def test_a_replica_is_meant_once_whoever_means_it(database: Engine) -> None:
    first, second = rows(database, 1), rows(database, 1)
    assert first.intend(INTENT)
    assert not second.intend(INTENT)
    assert [r.id for r in first.load().replicas["dep-1"]] == ["rep-1-1"]


def test_a_deposed_leader_writes_nothing(database: Engine) -> None:
    old, new = rows(database, 1), rows(database, 2)
    assert old.intend(INTENT)
    new.move("dep-1", Status.STANDBY, Event.REPLICA_STARTING, "work")
    attempts = (
        lambda: old.intend(Intend("rep-1-2", "dep-1", 2, 1, "local", 1)),
        lambda: old.set_state("rep-1-1", ReplicaState.DRAINING),
        lambda: old.became_ready("rep-1-1", 1),
        lambda: old.gone("rep-1-1", "late", None),
        lambda: old.move("dep-1", Status.INITIALIZING, Event.START_FAILED, "late"),
        lambda: old.serve("dep-1", 3, "other"),
        lambda: old.take_back("dep-1", Status.INITIALIZING, 1, 3, "late"),
        lambda: old.forgive("dep-1"),
        lambda: old.note("dep-1", "scaled", "late", {}),
        lambda: old.retire("dep-1", [1]),
        old.prune,
    )
    for attempt in attempts:
        with pytest.raises(Deposed):
            attempt()
    with Session(database) as session:
        deployment = session.get_one(Deployment, "dep-1")
        assert (deployment.status, deployment.failed_starts) == ("initializing", 0)
        assert session.get_one(Replica, "rep-1-1").state == ReplicaState.STARTING
        assert session.get(Replica, "rep-1-2") is None
    assert new.latest_epoch() == 2


def test_a_replica_that_a_former_leader_gave_up_stays_gone(database: Engine) -> None:
    """It says so after the new one has looked, and before that one has written anything."""
    old, new = rows(database, 1), rows(database, 2)
    assert old.intend(INTENT)
    old.gone("rep-1-1", "stopped", None)
    new.became_ready("rep-1-1", served=1)
    new.set_state("rep-1-1", ReplicaState.DRAINING)
    new.gone("rep-1-1", "again", FailedStarts(1, 2000.0, 1))
    with Session(database) as session:
        row = session.get_one(Replica, "rep-1-1")
        assert (row.state, row.reason, row.ready_at) == ("gone", "stopped", None)
        deployment = session.get_one(Deployment, "dep-1")
        assert (deployment.served, deployment.failed_starts) == (0, 0)


def test_a_training_has_one_place_and_leaves_it(database: Engine) -> None:
    leader = rows(database, 1)
    job = TrainingJob(
        tenant_id="t", base_model="m", repo="r", version=1, training_file="f", settings={}
    )
    with Session(database, expire_on_commit=False) as session:
        session.add(job)
        session.commit()
    assert leader.place_training(job.id, "local", 0)
    assert leader.place_training(job.id, "local", 0), "asked for again"
    assert not leader.place_training(job.id, "local", 1)
    claim = Claim(database, TrainingJob, job.id, Path())
    leader.yield_training(job.id)
    (facts,) = observe_trainings(leader)
    assert not facts.yielding, "nobody runs it"
    assert claim.take_if() and not leader.place_training(job.id, "local", 0)
    leader.free_training(job.id)
    leader.yield_training(job.id)
    (facts,) = observe_trainings(leader)
    assert facts.yielding and facts.place == Place("local", 0), "somebody runs it"
    leader.now = facts.sign_at + 60
    leader.free_training(job.id)
    (facts,) = observe_trainings(leader)
    assert (facts.state, facts.place, facts.yielding) == ("queued", None, False)
    assert not claim.write(), "it is not its any more"
    other = TrainingJob(**job.model_dump(exclude={"id", "version"}), version=2)
    with Session(database, expire_on_commit=False) as session:
        session.add(other)
        session.commit()
    assert leader.place_training(job.id, "local", 0)
    assert not leader.place_training(other.id, "local", 0), "whoever leads"
    with pytest.raises(Deposed):
        rows(database, 0).place_training(job.id, "local", 0)


def test_old_evaluations_go_with_their_batches(database: Engine) -> None:
    leader = rows(database, 1)
    long_ago = datetime.fromtimestamp(0, UTC)
    batch = Batch(
        tenant_id="t",
        key_id="k",
        endpoint="e",
        input_file_id="f",
        status="completed",
        created_at=long_ago,
        expires_at=long_ago,
    )
    facts = {"deployment": "d", "dataset": "x", "variants": [], "metrics": [], "rows": 1}
    with Session(database, expire_on_commit=False) as session:
        session.add(batch)
        session.flush()
        session.add(Evaluation(tenant_id="t", batch_id=batch.id, **facts))
        session.commit()
    leader.now = EVENTS_KEPT_S + 1
    leader.prune()
    with Session(database) as session:
        assert not session.exec(select(Batch)).all() and not session.exec(select(Evaluation)).all()


def observe_trainings(leader: SqlRows) -> list[TrainingFacts]:
    return [training_facts(row) for row in leader.load().trainings]


def test_a_change_that_came_meanwhile_is_not_taken_back(database: Engine) -> None:
    scaler = rows(database, 1)
    with Session(database) as session:
        session.get_one(Deployment, "dep-1").target = 3  # a user's word, after the look
        session.commit()
    scaler.move("dep-1", Status.STANDBY, Event.REPLICA_STARTING, "work")
    assert scaler.intend(INTENT)
    scaler.gone("rep-1-1", "it failed", FailedStarts(3, 1300.0, target=2))
    scaler.take_back("dep-1", Status.INITIALIZING, 2, 1, "it can't start")
    after = scaler.load().deployments[0]
    assert (after.target, after.status, after.failed_starts) == (3, "initializing", 0)
    scaler.take_back("dep-1", Status.INITIALIZING, 3, 1, "it can't start")
    after = scaler.load().deployments[0]
    assert (after.target, after.status, after.reason) == (1, "standby", "it can't start")


def test_a_lane_that_was_forgotten_can_be_used_again(valkey: "redis_module.Redis") -> None:
    scaler, replica = ScalerBroker(valkey, "one"), WorkerBroker(valkey, LANE, "rep-1-1:0")
    scaler.epoch = scaler.lead(5) or 0
    replica.register(ReplicaReport("rep-1-1", "ready", 0.0))
    scaler.shut(LANE, "moved")
    scaler.forget_lane(LANE)
    keys = (LANE.jobs, LANE.reports, LANE.gate)
    assert all(0 < valkey.ttl(key) <= FORGOTTEN_AFTER_S for key in keys)
    scaler.open(LANE)
    WorkerBroker(valkey, LANE, "rep-1-2:0").register(ReplicaReport("rep-1-2", "ready", 0.0))
    assert [valkey.ttl(key) for key in keys] == [-1, -1, -1]


def test_a_deposed_leader_moves_no_lane(valkey: "redis_module.Redis") -> None:
    old, new = ScalerBroker(valkey, "old"), ScalerBroker(valkey, "new")
    old.epoch = old.lead(5) or 0
    valkey.delete(LEADER)  # its lease has run out
    new.epoch = new.lead(5) or 0
    assert new.epoch == old.epoch + 1
    new.fence([LANE])
    attempts = (
        lambda: old.close_idle(LANE),
        lambda: old.shut(LANE, "late"),
        lambda: old.open(LANE),
        lambda: old.order(LANE, "rep-1:0", drain=True),
        lambda: old.fence([LANE]),
        lambda: old.forget_lane(LANE),
    )
    for attempt in attempts:
        with pytest.raises(Deposed):
            attempt()
    assert new.observe([LANE])[LANE].gate == ""
    assert new.close_idle(LANE)


def test_an_epoch_never_comes_again_though_redis_forgot_it(valkey: "redis_module.Redis") -> None:
    broker = ScalerBroker(valkey, "one")
    assert broker.lead(5, least_epoch=7) == 8
    valkey.delete(LEADER, EPOCH)
    assert broker.lead(5, least_epoch=8) == 9
    assert broker.lead(5, least_epoch=0) == 9, "renewed, not raised"


def test_one_round_trip_for_all_lanes(valkey: "redis_module.Redis") -> None:
    broker = ScalerBroker(valkey, "one")
    lanes = [Lane("m", f"dep-{i}") for i in range(50)]
    assert set(broker.observe(lanes)) == set(lanes)
    before = valkey.info("stats")["total_reads_processed"]
    broker.observe(lanes)
    reads = valkey.info("stats")["total_reads_processed"] - before
    assert reads < 10, "a pipeline comes in a few pieces"


def test_a_row_that_cannot_be_understood_holds_its_own_deployment(
    database: Engine, valkey: "redis_module.Redis"
) -> None:
    """A time zone that isn't installed here. Its replica keeps its place, and is no orphan."""
    scaler, driver = rows(database, 1), FakeDriver(lambda: 0.0)
    broker = ScalerBroker(valkey, "one")
    assert scaler.intend(INTENT)
    driver.start(ReplicaSpec("rep-1-1", LANE.name))
    assert [d.id for d in observe(scaler, broker, driver).deployments] == ["dep-1"]
    hours = {"min_replicas": 1, "start": "08:00", "end": "18:00", "timezone": "Nowhere/Here"}
    with Session(database) as session:
        session.get_one(Deployment, "dep-1").schedules = [hours]
        session.commit()
    world = observe(scaler, broker, driver)
    assert (list(world.deployments), world.unread) == ([], {"dep-1"})
    assert (list(world.orphans), world.taken) == ([], {Place("local", 0)})


def no_webhook(delivery: str, tries: int) -> None:
    raise AssertionError("nobody has one")


def test_stored_events_are_published_in_order_also_by_the_next_leader(
    database: Engine, valkey: "redis_module.Redis", valkey_url: str
) -> None:
    broker = ScalerBroker(valkey, "one")
    relay = EventRelay(database, broker, valkey_url, Webhooks(database, no_webhook))
    options = {"global_keyprefix": BUS_PREFIX}
    got: list[Any] = []
    with kombu.Connection(valkey_url, transport_options=options) as bus:
        queue = kombu.Queue("listener", EXCHANGE, routing_key="deployment.#")
        with bus.Consumer([queue], callbacks=[lambda body, m: (got.append(body), m.ack())]):
            _store(database, "one", "two")
            relay.publish()
            relay.publish()
            _store(database, "three")
            EventRelay(
                database, broker, valkey_url, Webhooks(database, no_webhook)
            ).publish()  # another leader's
            while not got or got[-1]["kind"] != "three":
                bus.drain_events(timeout=60)
    kinds = [event["kind"] for event in got]
    assert kinds[:2] == ["one", "two"]
    assert set(kinds[2:-1]) <= {"one", "two"}, "at least once: the next one can't know"
    assert (got[0]["deployment"], got[0]["tenant"]) == ("d", "t")


def _store(database: Engine, *kinds: str) -> None:
    with Session(database) as session:
        for kind in kinds:
            session.add(
                DeploymentEvent(
                    deployment_id="dep-1",
                    kind=kind,
                    actor="user:t",
                    from_status="ready",
                    to_status="ready",
                )
            )
        session.commit()


def test_tokens_are_charted_once_whoever_led_when(database: Engine) -> None:
    old, new = (Charts(rows(database, epoch), {}) for epoch in (1, 2))
    old.load()
    for now, counted in ((100.0, 0), (101.0, 40), (105.0, 50)):
        old.look(world(now, replica("a", counted)))
    new.load()
    with pytest.raises(Deposed):
        old.look(world(110.0, replica("a", 60)))
    for now in (106.0, 110.0):
        new.look(world(now, replica("a", 60)))
    with Session(database) as session:
        points = session.exec(
            select(ChartPoint).where(ChartPoint.deployment_id == "dep", ChartPoint.step_s == 5)
        )
        assert sum(point.figures["generated"] for point in points) == 60
