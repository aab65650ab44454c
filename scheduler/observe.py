"""The database, Redis and the driver → one `World`: three queries, one round trip, one listing."""

import logging
from dataclasses import dataclass
from datetime import datetime

from loraplex.broker.interface import SeenLane
from loraplex.broker.scaler import ScalerBroker
from loraplex.entities import Deployment, Replica, Revision
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from scheduler.drivers.base import Driver, Running
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.rows import SqlRows
from scheduler.scaling import Scaling
from scheduler.schedules import in_force

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Lanes:
    """Those of one deployment."""

    serving: Lane
    by_revision: dict[int, Lane]


def observe(rows: SqlRows, broker: ScalerBroker, driver: Driver) -> World:
    """Raises when Redis or the database is away."""
    processes = _processes(driver)
    rows.now = now = broker.time()
    loaded = rows.load()
    lanes = {d.id: _lanes_of(d, loaded.revisions[d.id]) for d in loaded.deployments}
    wanted = {
        lane for each in lanes.values() for lane in (each.serving, *each.by_revision.values())
    }
    seen = broker.observe(list(wanted))
    known = {r.id for replicas in loaded.replicas.values() for r in replicas}
    return World(
        now=now,
        deployments=[_deployment(d, lanes[d.id], now) for d in loaded.deployments],
        replicas={
            name: [_replica(r, lanes[name], seen, processes) for r in replicas]
            for name, replicas in loaded.replicas.items()
            if name in lanes
        },
        lanes=seen,
        driver_heard=processes is not None,
        orphans=sorted(set(processes or ()) - known),
    )


def _processes(driver: Driver) -> dict[str, Running] | None:
    """None: the driver can't tell. That is not nothing."""
    try:
        return {p.replica: p for p in driver.list()}
    except OSError as away:
        log.warning("the driver doesn't answer: %s", away)
        return None


def _lanes_of(deployment: Deployment, revisions: list[Revision]) -> _Lanes:
    by_revision = {r.number: Lane(r.base_model, deployment.id) for r in revisions}
    return _Lanes(deployment.lane, by_revision)


def scaling_of(row: Deployment) -> Scaling:
    """The knobs as its owner set them, whatever its schedules say."""
    return Scaling(
        min_replicas=row.min_replicas,
        max_replicas=row.max_replicas,
        cooldown_s=row.cooldown_time,
        threshold=row.scale_up_threshold,
        target_wait_s=row.target_wait_s,
        cold_start_weight=row.cold_start_weight,
    )


def _deployment(row: Deployment, lanes: _Lanes, now: float) -> DeploymentFacts:
    target_lane = lanes.by_revision.get(row.target, lanes.serving)
    return DeploymentFacts(
        id=row.id,
        name=row.name,
        status=Status(row.status),
        reason=row.reason,
        scaling=in_force(scaling_of(row), row.schedules, now),
        priority=row.priority,
        lane=lanes.serving,
        revision=row.revision,
        target=row.target,
        target_lane=target_lane,
        prepared=row.prepared,
        failed_starts=row.failed_starts,
        retry_at=_seconds(row.retry_at),
        starts=row.starts,
        retiring=tuple(
            (number, lane)
            for number, lane in lanes.by_revision.items()
            if lane not in (lanes.serving, target_lane)
        ),
        forgotten=not lanes.by_revision,
    )


def _replica(
    row: Replica, lanes: _Lanes, seen: dict[Lane, SeenLane], processes: dict[str, Running] | None
) -> ReplicaFacts:
    lane = lanes.by_revision.get(row.revision, lanes.serving)
    mine = [r for r in seen[lane].by_age() if r.report.replica == row.id] if lane in seen else []
    return ReplicaFacts(
        id=row.id,
        lane=lane,
        revision=row.revision,
        state=ReplicaState(row.state),
        host=row.host,
        slot=row.slot,
        created_at=row.created_at.timestamp(),
        asked_at=row.asked_at.timestamp(),
        process=(processes or {}).get(row.id),
        seen=mine[-1] if mine else None,
    )


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None
