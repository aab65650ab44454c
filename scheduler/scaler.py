"""The scaler process: lead or stand by, look at every deployment, wake when something happens."""

import logging
import random
import secrets
import signal
import threading
import time

from sqlmodel import Session, col, select

from loraplex.broker.connection import Unavailable, check, connect
from loraplex.broker.scaler import ScalerBroker
from loraplex.database import connect as connect_database
from loraplex.entities import Deployment, Replica, ReplicaState, utc_now
from loraplex.settings import ScalerSettings
from loraplex.status import Status
from scheduler.drivers.base import Driver, Running
from scheduler.drivers.process import ProcessDriver
from scheduler.housekeeping import Housekeeping
from scheduler.reconcile import Reconciler
from scheduler.tasks.imports import prepare_deployment
from scheduler.tasks.replicas import start_replica, stop_replica

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 0.05  # a burst of wake-ups is one look
SETTLE_S = 3.0  # after Redis was away: replicas renew their leases first, or they'd look dead
DELETED_LINGERS_S = 3600.0  # a deleted deployment is looked at until its last replica is gone


class CeleryTasks:
    """Asks the task workers; nothing is done in the scaler itself."""

    def prepare(self, deployment_id: str) -> None:
        prepare_deployment.delay(deployment_id)

    def start(self, replica_id: str) -> None:
        start_replica.delay(replica_id)

    def stop(self, replica_id: str) -> None:
        stop_replica.delay(replica_id)


class Scaler:
    def __init__(self, settings: ScalerSettings) -> None:
        self._settings = settings
        redis = connect(settings.redis_url)
        check(redis)
        self._broker = ScalerBroker(redis, f"scaler-{secrets.token_hex(4)}")
        self._driver: Driver = ProcessDriver(settings)
        self._database = connect_database(settings.database)
        self._tasks = CeleryTasks()
        self._reconciler = Reconciler(self._broker, self._tasks, settings)
        self._housekeeping = Housekeeping(self._broker, settings.retention_s)
        self._leads = False
        self._look_from = 0.0
        self._settled: set[str] = set()  # deployments that have been looked at for the last time
        self.stop = threading.Event()

    def run(self) -> None:
        """Until `stop` is set. Redis away: wait with jitter, the replicas go on meanwhile."""
        while not self.stop.is_set():
            try:
                self._turn()
                self._broker.wait_for_wake(self._settings.tick_s)
                self.stop.wait(SHORTEST_PAUSE_S)
                self._broker.forget_wakes()
            except Unavailable as away:
                log.warning("Redis is away, trying again: %s", away)
                self._look_from = time.monotonic() + SETTLE_S
                self._pause()
            except Exception:  # the outermost loop: the database is away, say
                log.exception("this look failed, trying again")
                self._pause()
        if self._leads:
            self._broker.resign()

    def _pause(self) -> None:
        self._leads = False
        self.stop.wait(random.uniform(0.2, 1.5))

    def _turn(self) -> None:
        leads = self._broker.lead(self._settings.leader_lease_s)
        if leads != self._leads:
            log.info("%s %s", self._broker.scaler_id, "leads" if leads else "stands by")
            self._leads = leads
            self._housekeeping.blind()
        if leads and time.monotonic() >= self._look_from:
            self._look()

    def _look(self) -> None:
        processes = {p.replica: p for p in self._driver.list()}
        with Session(self._database) as session:
            deployments = self._deployments(session)
            for deployment in deployments:
                self._reconcile(session, deployment, processes)
                if not self._broker.lead(self._settings.leader_lease_s):
                    return  # this look took too long; another scaler acts now
            self._stop_orphans(session, processes)
            self._housekeeping.run([deployment.lane for deployment in deployments])

    def _reconcile(
        self, session: Session, deployment: Deployment, processes: dict[str, Running]
    ) -> None:
        """One deployment that can't be looked at must not hide those behind it."""
        name = deployment.name
        try:
            self._reconciler.reconcile(session, deployment, processes)
            age_s = utc_now().timestamp() - deployment.changed_at.timestamp()
            if deployment.status == Status.DELETED and age_s > DELETED_LINGERS_S:
                self._settled.add(deployment.id)
        except Unavailable:
            raise
        except Exception:
            session.rollback()
            log.exception("%s: this look failed", name)

    def _deployments(self, session: Session) -> list[Deployment]:
        """All but those that were deleted a while ago and have left nothing."""
        rows = list(session.exec(select(Deployment).order_by(col(Deployment.created_at))))
        replicas = select(Replica.deployment_id).where(Replica.state != ReplicaState.GONE)
        have_replicas = set(session.exec(replicas))
        return [d for d in rows if d.id not in self._settled or d.id in have_replicas]

    def _stop_orphans(self, session: Session, processes: dict[str, Running]) -> None:
        """Processes that no row wants: left over from a crash between two lines of ours."""
        for replica_id in processes:
            row = session.get(Replica, replica_id)
            if row is None or row.state == ReplicaState.GONE:
                self._tasks.stop(replica_id)


def main() -> None:
    from loraplex.logs import configure

    settings = ScalerSettings()
    configure("scaler", settings.log_level)
    scaler = Scaler(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scaler.stop.set())
    scaler.run()
