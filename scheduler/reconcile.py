"""One look at one deployment: facts → replica rows → status → decision → actions.

Intent before action: a replica's row is written before anything is started, and its start is asked
for again until a process is seen. So a crash at any line leaves nothing lost or doubled.
"""

import logging
from datetime import datetime, timedelta
from typing import Protocol

from sqlmodel import Session, col, select

from loraplex import lifecycle
from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.broker.scaler import ScalerBroker
from loraplex.entities import Deployment, Replica, ReplicaState, utc_now
from loraplex.settings import ScalerSettings
from loraplex.status import ADMITTING, Event, Status
from scheduler.drivers.base import Running
from scheduler.law import Memory, Observation, Scaling, decide
from scheduler.plan import ReplicaView, plan

log = logging.getLogger(__name__)

MOST_FAILED_STARTS = 3
ASK_AGAIN_S = 10.0
PREPARE_AGAIN_S = 900.0
_HAD_REPLICAS = (Status.READY, Status.UPDATING)
SILENT_S = 15.0  # a ready replica without lease and report for this long is killed


class Tasks(Protocol):
    """The slow work that a reconciler asks for."""

    def prepare(self, deployment_id: str) -> None: ...
    def start(self, replica_id: str) -> None: ...
    def stop(self, replica_id: str) -> None: ...


class Reconciler:
    """Keeps one memory of the law per deployment; everything else is in the database and Redis."""

    def __init__(self, broker: ScalerBroker, tasks: Tasks, settings: ScalerSettings) -> None:
        self._broker = broker
        self._tasks = tasks
        self._settings = settings
        self._memory: dict[str, Memory | None] = {}
        self._prepare_asked_at: dict[str, float] = {}

    def reconcile(
        self, session: Session, deployment: Deployment, processes: dict[str, Running]
    ) -> None:
        """Bring one deployment nearer to what it should be. Raises when Redis is away."""
        seen = self._broker.observe(deployment.lane)
        replicas = list(
            session.exec(
                select(Replica)
                .where(
                    Replica.deployment_id == deployment.id,
                    Replica.state != ReplicaState.GONE,
                )
                .order_by(col(Replica.created_at))
            )
        )
        for replica in replicas:
            self._sync(session, deployment, replica, _of(replica, seen), processes)
        self._forget_strangers(deployment, seen, {r.id for r in replicas})
        living = [r for r in replicas if r.state != ReplicaState.GONE]
        self._settle_status(session, deployment, living)
        if deployment.status == Status.PENDING:
            self._prepare(deployment, seen.at)
            return
        self._prepare_asked_at.pop(deployment.id, None)
        if deployment.status in ADMITTING:
            self._broker.open(deployment.lane)
            self._scale(session, deployment, living, seen)
        else:
            self._wind_down(session, deployment, living, seen)

    # Facts → replica rows

    def _sync(
        self,
        session: Session,
        deployment: Deployment,
        replica: Replica,
        seen: SeenReplica | None,
        processes: dict[str, Running],
    ) -> None:
        process = processes.get(replica.id)
        alive = seen is not None and seen.alive
        ended = (process is not None and not process.alive) or (
            process is None and replica.state != ReplicaState.STARTING
        )
        if replica.state == ReplicaState.STARTING:
            if alive and seen is not None:
                replica.state = ReplicaState.READY
                replica.ready_at = utc_now()
                deployment.failed_starts = 0
                deployment.retry_at = None
                session.add_all([replica, deployment])
                session.commit()
                log.info(
                    "%s: %s ready (%.1f s)", deployment.name, replica.id, seen.report.ready_after_s
                )
            elif seen is not None and seen.report.phase == "failed":
                self._start_failed(
                    session, deployment, replica, seen.report.error or "", seen.report.permanent
                )
            elif ended:
                tail = process.log_tail if process else ""
                self._start_failed(
                    session,
                    deployment,
                    replica,
                    f"The replica died at start. {tail}".strip(),
                    False,
                )
            elif _age(replica.created_at) > self._settings.start_timeout_s:
                limit = self._settings.start_timeout_s
                self._start_failed(
                    session, deployment, replica, f"It was not ready after {limit:g} s.", False
                )
            elif process is None and _age(replica.asked_at) > ASK_AGAIN_S:
                self._ask(session, replica)
        elif not alive and ended:
            tail = process.log_tail if process is not None else ""
            died = f"it died. {tail[-500:]}".strip()
            self._gone(session, deployment, replica, "it drained" if _left(seen) else died)
        elif not alive and (seen is None or _silence(seen) > SILENT_S):
            self._gone(session, deployment, replica, "it was silent for too long")
        elif (
            replica.state == ReplicaState.DRAINING
            and _age(replica.asked_at) > self._settings.drain_timeout_s
        ):
            self._gone(session, deployment, replica, "draining took too long")
        elif replica.state == ReplicaState.DRAINING and seen is not None:
            self._remind(deployment, seen)

    def _remind(self, deployment: Deployment, seen: SeenReplica) -> None:
        """An incarnation that came after the order has not heard it."""
        if seen.alive and not seen.ordered_to_drain:
            self._broker.order(deployment.lane, seen.incarnation, drain=True)

    def _start_failed(
        self,
        session: Session,
        deployment: Deployment,
        replica: Replica,
        error: str,
        permanent: bool,
    ) -> None:
        deployment.failed_starts += 1
        wait = min(5 * 2 ** (deployment.failed_starts - 1), 300)
        deployment.retry_at = utc_now() + timedelta(seconds=wait)
        session.add(deployment)
        self._gone(session, deployment, replica, error)
        if permanent or deployment.failed_starts >= MOST_FAILED_STARTS:
            lifecycle.apply(session, deployment, Event.START_FAILED, actor="scaler", reason=error)

    def _gone(
        self, session: Session, deployment: Deployment, replica: Replica, reason: str
    ) -> None:
        replica.state = ReplicaState.GONE
        replica.gone_at = utc_now()
        replica.reason = reason
        session.add(replica)
        session.commit()
        log.info("%s: %s is gone: %s", deployment.name, replica.id, reason)
        lifecycle.note(
            session,
            deployment,
            "replica_gone",
            actor="scaler",
            reason=f"{replica.id}: {reason}"[:2000],
        )
        self._tasks.stop(replica.id)

    def _forget_strangers(self, deployment: Deployment, seen: SeenLane, known: set[str]) -> None:
        """Reports that nobody will renew."""
        newest = {r.report.replica: r.incarnation for r in _by_age(seen)}
        for replica in seen.replicas:
            stale = (
                replica.report.replica not in known
                or newest[replica.report.replica] != replica.incarnation
            )
            if stale and not replica.alive:
                self._broker.forget_replica(deployment.lane, replica.incarnation)

    # Replica rows → status

    def _settle_status(
        self, session: Session, deployment: Deployment, living: list[Replica]
    ) -> None:
        ready = [r for r in living if r.state == ReplicaState.READY]
        event = None
        if ready:
            event, reason = Event.REPLICA_READY, f"{ready[0].id} is ready"
        elif not living and (deployment.failed_starts == 0 or deployment.status in _HAD_REPLICAS):
            event, reason = Event.LAST_REPLICA_GONE, "no replica is left"
            deployment.retry_at = None  # of scaling up further: it must not hold up the first one
            session.add(deployment)
        if event is not None:
            lifecycle.apply(session, deployment, event, actor="scaler", reason=reason)

    # Status → actions

    def _prepare(self, deployment: Deployment, now: float) -> None:
        """Ask for the artefacts; again after a while, should the task have been lost."""
        asked_at = self._prepare_asked_at.get(deployment.id)
        if asked_at is None or now - asked_at > PREPARE_AGAIN_S:
            self._prepare_asked_at[deployment.id] = now
            self._tasks.prepare(deployment.id)

    def _scale(
        self, session: Session, deployment: Deployment, living: list[Replica], seen: SeenLane
    ) -> None:
        serving = [r for r in living if r.state != ReplicaState.DRAINING]
        bounds = Scaling(
            deployment.min_replicas,
            deployment.max_replicas,
            deployment.cooldown_time,
            deployment.scale_up_threshold,
        )
        observation = Observation(seen.waiting, seen.running, len(serving))
        decision, memory = decide(bounds, observation, self._memory.get(deployment.id), seen.at)
        self._memory[deployment.id] = memory
        if decision is None:
            return
        if decision.replicas == 0 and serving and not self._broker.close_idle(deployment.lane):
            return  # a request came between the look and now
        if decision.replicas == 0 and not living:  # also ends a back-off that nobody waits for
            lifecycle.apply(
                session, deployment, Event.LAST_REPLICA_GONE, actor="scaler", reason=decision.reason
            )
        running = {r.report.replica: r.report.running for r in seen.replicas if r.alive}
        views = [ReplicaView(r.id, r.state, running.get(r.id, 0)) for r in living]
        todo = plan(decision.replicas, views)
        backing_off = deployment.retry_at is not None and utc_now() < deployment.retry_at
        if todo.start and not backing_off:
            lifecycle.apply(
                session,
                deployment,
                Event.REPLICA_STARTING,
                actor="scaler",
                reason=decision.reason,
            )
            for _ in range(todo.start):
                self._start(session, deployment)
            self._note(session, deployment, len(serving), decision.replicas, decision.reason)
        rows = {r.id: r for r in living}
        for replica_id in todo.keep:
            self._order(session, deployment, rows[replica_id], seen, drain=False)
        for replica_id in todo.drain:
            self._order(session, deployment, rows[replica_id], seen, drain=True)
        for replica_id in todo.abort:
            self._gone(session, deployment, rows[replica_id], "not needed any more")
        if todo.drain or todo.abort:
            self._note(session, deployment, len(serving), decision.replicas, decision.reason)

    def _wind_down(
        self, session: Session, deployment: Deployment, living: list[Replica], seen: SeenLane
    ) -> None:
        """Stopped, Errored or Deleted: answer what nobody runs, let the rest finish, stop."""
        self._memory.pop(deployment.id, None)
        self._broker.shut(deployment.lane, refusal(deployment))
        for replica in living:
            if replica.state == ReplicaState.STARTING:
                self._gone(session, deployment, replica, f"deployment is {deployment.status}")
            elif replica.state == ReplicaState.READY:
                self._order(session, deployment, replica, seen, drain=True)
        if seen.waiting or seen.running:
            code = f"deployment_{deployment.status}"
            count = self._broker.answer_stranded(deployment.lane, code, refusal(deployment))
            if count:
                log.info("%s: answered %d waiting requests", deployment.name, count)
        if deployment.status == Status.DELETED and not living:
            self._broker.forget_lane(deployment.lane)

    def _start(self, session: Session, deployment: Deployment) -> None:
        replica = Replica(deployment_id=deployment.id)
        session.add(replica)
        session.commit()
        self._tasks.start(replica.id)

    def _ask(self, session: Session, replica: Replica) -> None:
        replica.asked_at = utc_now()
        session.add(replica)
        session.commit()
        self._tasks.start(replica.id)

    def _order(
        self,
        session: Session,
        deployment: Deployment,
        replica: Replica,
        seen: SeenLane,
        *,
        drain: bool,
    ) -> None:
        target = _of(replica, seen)
        if target is None or not self._broker.order(
            deployment.lane, target.incarnation, drain=drain
        ):
            return
        replica.state = ReplicaState.DRAINING if drain else ReplicaState.READY
        replica.asked_at = utc_now()
        session.add(replica)
        session.commit()

    def _note(
        self, session: Session, deployment: Deployment, before: int, after: int, reason: str
    ) -> None:
        text = f"{before} → {after} replicas: {reason}"
        log.info("%s: %s", deployment.name, text)
        lifecycle.note(session, deployment, "scaled", actor="scaler", reason=text)


def refusal(deployment: Deployment) -> str:
    """What a client reads whose deployment takes no requests."""
    name = deployment.name
    if deployment.status == Status.STOPPED:
        return f"Deployment {name!r} is stopped. Start it: loraplex start {name}"
    if deployment.status == Status.ERRORED:
        return (
            f"Deployment {name!r} could not start: {deployment.reason} "
            f"Try again with: loraplex start {name}"
        )
    return f"Deployment {name!r} was deleted."


def _of(replica: Replica, seen: SeenLane) -> SeenReplica | None:
    """The replica's newest incarnation."""
    mine = [r for r in _by_age(seen) if r.report.replica == replica.id]
    return mine[-1] if mine else None


def _by_age(seen: SeenLane) -> list[SeenReplica]:
    return sorted(seen.replicas, key=lambda r: (r.alive, r.report.at))


def _left(seen: SeenReplica | None) -> bool:
    return seen is not None and seen.report.phase == "exited"


def _silence(seen: SeenReplica) -> float:
    return utc_now().timestamp() - seen.report.at


def _age(since: datetime) -> float:
    return (utc_now() - since).total_seconds()
