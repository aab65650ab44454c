"""The scaler's side of the database: what it reads in a look, and fenced writes.

Each write first raises the one row of `Leadership` to this scaler's epoch, in its own transaction:
where a later leader has written, nothing is changed and `Deposed` is raised.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, Update, and_, delete, or_, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from loraplex import chart_points, lifecycle
from loraplex.batch_status import UNDER_WAY
from loraplex.broker.interface import Deposed
from loraplex.compare_and_set import changed
from loraplex.entities import (
    NO_PLACE,
    UNFINISHED,
    Batch,
    Deployment,
    DeploymentEvent,
    Evaluation,
    Leadership,
    Replica,
    Revision,
    StoredResponse,
    TrainingJob,
    UsageRecord,
    WebhookDelivery,
    WorkState,
)
from loraplex.replica_state import ReplicaState
from loraplex.status import Event, Status
from scheduler.actions import FailedStarts, Intend
from scheduler.placement import Place
from scheduler.trainings import SILENT_S

# A deleted deployment is looked at for so long, or while it has replicas.
DELETED_LINGERS_S = 3600.0
EVENTS_KEPT_S = 30 * 86400.0
BILLS_KEPT_S = 400 * 86400.0  # replicas that are gone, and usage records


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of one look."""

    deployments: list[Deployment]
    revisions: dict[str, list[Revision]]  # those that aren't retired, by deployment
    replicas: dict[str, list[Replica]]  # those that aren't gone, by deployment, oldest first
    trainings: list[TrainingJob]  # those that have a place, or want one


class SqlRows:
    """`now`: seconds, Redis' clock, of the look that is under way."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.epoch = 0
        self.now = 0.0

    def latest_epoch(self) -> int:
        """The latest one that anybody has written in."""
        with Session(self._database) as session:
            row = session.get(Leadership, 1)
            return row.epoch if row else 0

    def load(self) -> Loaded:
        """Four queries, whatever there is."""
        with Session(self._database, expire_on_commit=False) as session:
            replicas: dict[str, list[Replica]] = {}
            for replica in session.exec(
                select(Replica)
                .where(Replica.state != ReplicaState.GONE)
                .order_by(col(Replica.created_at))
            ):
                replicas.setdefault(replica.deployment_id, []).append(replica)
            since = datetime.fromtimestamp(self.now - DELETED_LINGERS_S, UTC)
            wanted = select(Deployment).where(
                or_(
                    col(Deployment.status) != Status.DELETED.value,
                    col(Deployment.changed_at) > since,
                    col(Deployment.id).in_(list(replicas)),
                )
            )
            deployments = list(session.exec(wanted.order_by(col(Deployment.created_at))))
            revisions: dict[str, list[Revision]] = {d.id: [] for d in deployments}
            for revision in session.exec(select(Revision).where(~col(Revision.retired))):
                if revision.deployment_id in revisions:
                    revisions[revision.deployment_id].append(revision)
            unfinished = col(TrainingJob.state).in_(UNFINISHED)
            placed = col(TrainingJob.host) != ""
            trainings = session.exec(select(TrainingJob).where(or_(unfinished, placed))).all()
            return Loaded(deployments, revisions, replicas, list(trainings))

    def places(self, replicas: Sequence[str]) -> frozenset[Place]:
        """Where replicas are or were."""
        if not replicas:
            return frozenset()
        wanted = select(Replica.host, Replica.slot).where(col(Replica.id).in_(replicas))
        with Session(self._database) as session:
            return frozenset(Place(*row) for row in session.exec(wanted))

    @contextmanager
    def fenced(self) -> Iterator[Session]:
        """A transaction that no other scaler's overlaps. Raises Deposed."""
        with Session(self._database) as session:
            held = (
                update(Leadership)
                .where(col(Leadership.id) == 1, col(Leadership.epoch) <= self.epoch)
                .values(epoch=self.epoch)
            )
            if not changed(session, held):
                session.rollback()
                raise Deposed(self.epoch)
            yield session

    def move(self, deployment: str, seen: Status, event: Event, reason: str) -> None:
        with self.fenced() as session:
            row = session.get_one(Deployment, deployment)
            if row.status == seen:
                lifecycle.apply(session, row, event, actor="scaler", reason=reason)

    def serve(self, deployment: str, revision: int, base_model: str) -> None:
        self._update(deployment, revision=revision, base_model=base_model)

    def take_back(
        self, deployment: str, seen: Status, target: int, revision: int, reason: str
    ) -> None:
        also = {"target": revision, "failed_starts": 0, "retry_at": None}
        event, where = Event.ROLLOUT_FAILED, {"target": target}
        with self.fenced() as session:
            row = session.get_one(Deployment, deployment)
            if row.status == seen:
                lifecycle.apply(
                    *(session, row, event), actor="scaler", reason=reason, also=also, where=where
                )

    def forgive(self, deployment: str) -> None:
        self._update(deployment, failed_starts=0, retry_at=None)

    def _update(self, deployment: str, **values: object) -> None:
        wanted = update(Deployment).where(col(Deployment.id) == deployment)
        with self.fenced() as session:
            session.execute(wanted.values(**values))
            session.commit()

    def intend(self, replica: Intend) -> bool:
        row = Replica(
            id=replica.id,
            deployment_id=replica.deployment,
            revision=replica.revision,
            host=replica.host,
            slot=replica.slot,
            created_at=self._time(),
            asked_at=self._time(),
        )
        with self.fenced() as session:
            session.get_one(Deployment, replica.deployment).starts = replica.ordinal
            session.add(row)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()
                return False
            return True

    def set_state(self, replica: str, state: ReplicaState) -> None:
        with self._moving(replica, state):
            pass

    def became_ready(self, replica: str, served: int) -> None:
        with self._moving(replica, ReplicaState.READY) as moving:
            if moving is None:
                return
            session, row, its = moving
            if row.ready_at is None:
                row.ready_at = self._time()
            if served:
                session.execute(its.values(failed_starts=0, retry_at=None, served=served))

    def gone(self, replica: str, reason: str, failed: FailedStarts | None) -> None:
        with self._moving(replica, ReplicaState.GONE) as moving:
            if moving is None:
                return
            session, row, its = moving
            row.gone_at, row.reason = self._time(), reason
            if failed is not None:
                retry_at = datetime.fromtimestamp(failed.retry_at, UTC)
                counted = its.values(failed_starts=failed.count, retry_at=retry_at)
                session.execute(counted.where(col(Deployment.target) == failed.target))

    @contextmanager
    def _moving(
        self, replica: str, state: ReplicaState
    ) -> Iterator[tuple[Session, Replica, Update] | None]:
        """A replica's row, and the start of an update of its deployment's, in one transaction.
        None: it is gone, which is final. A former leader may say so after this one has looked, and
        before this one has written anything."""
        with self.fenced() as session:
            row = session.get_one(Replica, replica)
            if row.state == ReplicaState.GONE:
                session.rollback()
                yield None
                return
            row.state, row.asked_at = state.value, self._time()
            yield session, row, update(Deployment).where(col(Deployment.id) == row.deployment_id)
            session.commit()

    def retire(self, deployment: str, revisions: Sequence[int] | None) -> None:
        wanted = update(Revision).where(col(Revision.deployment_id) == deployment)
        if revisions is not None:
            wanted = wanted.where(col(Revision.number).in_(revisions))
        with self.fenced() as session:
            session.execute(wanted.values(retired=True))
            session.commit()

    def note(self, deployment: str, kind: str, reason: str, inputs: Mapping[str, float]) -> None:
        with self.fenced() as session:
            row = session.get_one(Deployment, deployment)
            lifecycle.note(session, row, kind, actor="scaler", reason=reason, inputs=inputs)

    def place_training(self, job: str, host: str, slot: int) -> bool:
        now = self._time()
        waits = update(TrainingJob).where(
            col(TrainingJob.id) == job,
            col(TrainingJob.state) == WorkState.QUEUED.value,
            or_(
                col(TrainingJob.host) == "",
                and_(col(TrainingJob.host) == host, col(TrainingJob.slot) == slot),
            ),
        )
        with self.fenced() as session:
            values = {"host": host, "slot": slot, "placed_at": now, "beat_at": now}
            try:
                done = changed(session, waits.values(yielding=False, **values))
                session.commit()
            except IntegrityError:  # a former leader gave the place to another one just now
                session.rollback()
                return False
        return bool(done)

    def yield_training(self, job: str) -> None:
        running = col(TrainingJob.state) == WorkState.RUNNING.value
        mine = update(TrainingJob).where(col(TrainingJob.id) == job, running)
        with self.fenced() as session:
            session.execute(mine.values(yielding=True))
            session.commit()

    def free_training(self, job: str) -> None:
        """One that waits for its worker, or whose worker is silent."""
        silent = col(TrainingJob.beat_at) < self._time() - timedelta(seconds=SILENT_S)
        queued = col(TrainingJob.state) == WorkState.QUEUED.value
        mine = update(TrainingJob).where(col(TrainingJob.id) == job, or_(queued, silent))
        with self.fenced() as session:
            session.execute(mine.values(NO_PLACE))
            died = mine.where(col(TrainingJob.state) == WorkState.RUNNING.value)
            session.execute(died.values(state=WorkState.QUEUED.value, runner=""))
            session.commit()

    def prune(self) -> None:
        """Drop what no page shows: events of long ago, and bills that are older still."""
        events = datetime.fromtimestamp(self.now - EVENTS_KEPT_S, UTC)
        bills = self.now - BILLS_KEPT_S
        replicas = datetime.fromtimestamp(bills, UTC)
        with self.fenced() as session:
            session.execute(delete(DeploymentEvent).where(col(DeploymentEvent.at) < events))
            session.execute(delete(Replica).where(col(Replica.gone_at) < replicas))
            deliveries = col(WebhookDelivery.created_at) < events
            session.execute(delete(WebhookDelivery).where(deliveries))
            batches = col(Batch.created_at) < events, col(Batch.status).not_in(UNDER_WAY)
            old = col(Evaluation.batch_id).in_(select(Batch.id).where(*batches))
            session.execute(delete(Evaluation).where(old))
            session.execute(delete(Batch).where(*batches))
            responses = col(StoredResponse.created_at) < events
            session.execute(delete(StoredResponse).where(responses))
            session.execute(delete(UsageRecord).where(col(UsageRecord.at) < bills))
            chart_points.prune(session, self.now)
            session.commit()

    def _time(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)
