"""The database, Redis and the driver → one `World`: four queries, one round trip, one listing."""

import logging
from collections.abc import Mapping

from loraplex.broker.interface import SeenLane
from loraplex.broker.scaler import ScalerBroker
from loraplex.entities import Deployment, Replica, TrainingJob, WorkState
from loraplex.keys import Lane
from scheduler.drivers.base import Driver, Running
from scheduler.facts import (
    DeploymentFacts,
    ReplicaFacts,
    World,
    deployment_facts,
    replica_facts,
)
from scheduler.placement import Place
from scheduler.rows import SqlRows
from scheduler.scaling import Scaling
from scheduler.schedules import in_force
from scheduler.trainings import TrainingFacts

log = logging.getLogger(__name__)


def observe(rows: SqlRows, broker: ScalerBroker, driver: Driver) -> World:
    """Raises when Redis or the database is away."""
    processes = _processes(driver)
    rows.now = now = broker.time()
    loaded = rows.load()
    lanes = {name: {r.number: r.lane for r in each} for name, each in loaded.revisions.items()}
    found = {d.id: _facts(d, lanes[d.id], now) for d in loaded.deployments}
    deployments = [facts for facts in found.values() if facts is not None]
    wanted = {lane for d in deployments for lane in (d.lane, *d.lanes.values())}
    seen = broker.observe(list(wanted))
    known = {r.id for replicas in loaded.replicas.values() for r in replicas}
    orphans = sorted(set(processes or ()) - known)
    unread = frozenset(name for name, facts in found.items() if facts is None)
    ending = [name for name in orphans if processes and processes[name].alive]
    return World(
        now=now,
        deployments=deployments,
        replicas={
            d.id: [_replica(r, d, seen, processes) for r in loaded.replicas.get(d.id, ())]
            for d in deployments
        },
        lanes=seen,
        driver_heard=processes is not None,
        orphans=orphans,
        unread=unread,
        taken=rows.places(ending)
        | {Place(r.host, r.slot) for name in unread for r in loaded.replicas.get(name, ())},
        trainings=[training_facts(row) for row in loaded.trainings],
    )


def training_facts(row: TrainingJob) -> TrainingFacts:
    return TrainingFacts(
        id=row.id,
        tenant=row.tenant_id,
        state=WorkState(row.state),
        place=Place(row.host, row.slot or 0) if row.host else None,
        created_at=row.created_at.timestamp(),
        placed_at=row.placed_at.timestamp() if row.placed_at else None,
        sign_at=row.beat_at.timestamp(),
        yielding=row.yielding,
    )


def _processes(driver: Driver) -> dict[str, Running] | None:
    """None: the driver can't tell. That is not nothing."""
    try:
        return {p.replica: p for p in driver.list()}
    except OSError as away:
        log.warning("the driver doesn't answer: %s", away)
        return None


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


def _facts(row: Deployment, lanes: dict[int, Lane], now: float) -> DeploymentFacts | None:
    """None: it can't be understood (a time zone that isn't installed here, a later release's)."""
    retry_at = row.retry_at.timestamp() if row.retry_at else None
    try:
        scaling = in_force(scaling_of(row), row.schedules, now)
        return deployment_facts(row, lanes, scaling, retry_at)
    except (KeyError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        log.exception("%s is held as it is", row.name)
        return None


def _replica(
    row: Replica,
    deployment: DeploymentFacts,
    seen: Mapping[Lane, SeenLane],
    processes: Mapping[str, Running] | None,
) -> ReplicaFacts:
    lane = deployment.lanes.get(row.revision, deployment.lane)
    created_at, asked_at = row.created_at.timestamp(), row.asked_at.timestamp()
    return replica_facts(row, lane, seen.get(lane), processes, created_at, asked_at)
