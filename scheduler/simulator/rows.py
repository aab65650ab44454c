"""The database in memory: what `scheduler/rows.py` does, fenced by the same epoch, and the facts
that `observe.py` makes of rows. Statuses change by the one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from loraplex.broker.interface import Deposed, SeenLane
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Event, Status, next_status
from scheduler.actions import FailedStarts, Intend
from scheduler.drivers.base import Running
from scheduler.facts import ReplicaFacts, World, deployment_facts, replica_facts
from scheduler.placement import Place
from scheduler.scaling import Scaling
from scheduler.simulator.trainings import SimTrainings


@dataclass(slots=True)
class DeploymentRow:
    id: str
    base_model: str
    scaling: Scaling
    priority: int = 0
    status: Status = Status.STANDBY
    reason: str = ""
    revision: int = 1
    target: int = 1
    prepared: int = 1
    served: int = 0
    failed_starts: int = 0
    retry_at: float | None = None
    starts: int = 0
    models: dict[int, str] = field(default_factory=dict)  # base model by revision, not retired

    @property
    def name(self) -> str:
        return self.id

    @property
    def tenant_id(self) -> str:
        return ""

    @property
    def lane(self) -> Lane:
        return Lane(self.base_model, self.id)

    @property
    def lanes(self) -> dict[int, Lane]:
        return {number: Lane(model, self.id) for number, model in self.models.items()}


@dataclass(slots=True)
class ReplicaRow:
    id: str
    deployment: str
    revision: int
    host: str
    slot: int
    created_at: float
    asked_at: float
    state: ReplicaState = ReplicaState.STARTING
    reason: str = ""


@dataclass(slots=True)
class Tables:
    """What all scalers and tasks share."""

    time: Callable[[], float]  # Redis' clock
    trainings: SimTrainings
    deployments: dict[str, DeploymentRow] = field(default_factory=dict)
    replicas: dict[str, ReplicaRow] = field(default_factory=dict)  # those that are gone, too
    living: dict[str, dict[str, ReplicaRow]] = field(default_factory=dict)  # by deployment
    epoch: int = 0
    fencing: bool = True  # tests break it
    unique_names: bool = False  # the same
    moved: Callable[[DeploymentRow, Event, Status], None] = lambda row, event, before: None

    intended: Callable[[DeploymentRow], None] = lambda row: None

    def move(self, row: DeploymentRow, event: Event, reason: str) -> bool:
        after = next_status(row.status, event)
        if after is None:
            return False
        before, row.status, row.reason = row.status, after, reason
        self.moved(row, event, before)
        return True


class SimRows:
    """One scaler's."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.epoch = 0

    def _fence(self) -> None:
        if self._tables.fencing and self._tables.epoch > self.epoch:
            raise Deposed(self.epoch)
        self._tables.epoch = max(self._tables.epoch, self.epoch)

    def move(self, deployment: str, seen: Status, event: Event, reason: str) -> None:
        self._fence()
        row = self._tables.deployments[deployment]
        if row.status == seen:
            self._tables.move(row, event, reason)

    def serve(self, deployment: str, revision: int, base_model: str) -> None:
        self._change(deployment, {"revision": revision, "base_model": base_model})

    def take_back(
        self, deployment: str, seen: Status, target: int, revision: int, reason: str
    ) -> None:
        self._fence()
        row = self._tables.deployments[deployment]
        if (row.status, row.target) == (seen, target):
            self._change(deployment, {"target": revision, "failed_starts": 0, "retry_at": None})
            self._tables.move(row, Event.ROLLOUT_FAILED, reason)

    def forgive(self, deployment: str) -> None:
        self._change(deployment, {"failed_starts": 0, "retry_at": None})

    def _change(self, deployment: str, fields: Mapping[str, object]) -> None:
        self._fence()
        for name, value in fields.items():
            setattr(self._tables.deployments[deployment], name, value)

    def intend(self, replica: Intend) -> bool:
        self._fence()
        if self._tables.unique_names:
            replica = replace(replica, id=f"{replica.id}-{len(self._tables.replicas)}")
        if replica.id in self._tables.replicas:
            return False
        now = self._tables.time()
        row = ReplicaRow(
            *(replica.id, replica.deployment, replica.revision, replica.host, replica.slot),
            *(now, now),
        )
        self._tables.replicas[replica.id] = row
        self._tables.living.setdefault(replica.deployment, {})[replica.id] = row
        self._tables.deployments[replica.deployment].starts = replica.ordinal
        self._tables.intended(self._tables.deployments[replica.deployment])
        return True

    def set_state(self, replica: str, state: ReplicaState) -> None:
        self._fence()
        row = self._tables.replicas[replica]
        if row.state != ReplicaState.GONE:  # which is final
            row.state, row.asked_at = state, self._tables.time()

    def became_ready(self, replica: str, served: int) -> None:
        self.set_state(replica, ReplicaState.READY)
        if served and self._tables.replicas[replica].state != ReplicaState.GONE:
            succeeded = {"failed_starts": 0, "retry_at": None, "served": served}
            self._change(self._tables.replicas[replica].deployment, succeeded)

    def gone(self, replica: str, reason: str, failed: FailedStarts | None) -> None:
        row = self._tables.replicas[replica]
        if row.state == ReplicaState.GONE:
            self._fence()
            return
        self.set_state(replica, ReplicaState.GONE)
        self._tables.living[row.deployment].pop(replica, None)
        if failed is not None and failed.target == self._tables.deployments[row.deployment].target:
            fields = {"failed_starts": failed.count, "retry_at": failed.retry_at}
            self._change(row.deployment, fields)

    def retire(self, deployment: str, revisions: Sequence[int] | None) -> None:
        self._fence()
        models = self._tables.deployments[deployment].models
        for number in list(models) if revisions is None else revisions:
            models.pop(number, None)

    def note(self, deployment: str, kind: str, reason: str, inputs: Mapping[str, float]) -> None:
        self._fence()

    def place_training(self, job: str, host: str, slot: int) -> bool:
        self._fence()
        return self._tables.trainings.place(job, host, slot)

    def yield_training(self, job: str) -> None:
        self._fence()
        self._tables.trainings.tell_to_yield(job)

    def free_training(self, job: str) -> None:
        self._fence()
        self._tables.trainings.free(job)


def lanes_of(tables: Tables) -> set[Lane]:
    rows = tables.deployments.values()
    return {lane for row in rows for lane in (row.lane, *row.lanes.values())}


def world_of(
    tables: Tables,
    lanes: Mapping[Lane, SeenLane],
    processes: Mapping[str, Running] | None,
    now: float,
) -> World:
    """As `observe.py` makes it; `processes` None: the driver doesn't answer."""
    known = {name for rows in tables.living.values() for name in rows}
    orphans = sorted(set(processes or ()) - known)
    return World(
        now=now,
        deployments=[
            deployment_facts(row, row.lanes, row.scaling, row.retry_at)
            for row in tables.deployments.values()
        ],
        replicas={
            name: [
                _replica(row, tables.deployments[name], lanes, processes) for row in rows.values()
            ]
            for name, rows in tables.living.items()
            if rows
        },
        lanes=lanes,
        driver_heard=processes is not None,
        orphans=orphans,
        taken=frozenset(
            Place(tables.replicas[name].host, tables.replicas[name].slot)
            for name in orphans
            if processes and processes[name].alive
        ),
        trainings=tables.trainings.facts(),
    )


def _replica(
    row: ReplicaRow,
    deployment: DeploymentRow,
    lanes: Mapping[Lane, SeenLane],
    processes: Mapping[str, Running] | None,
) -> ReplicaFacts:
    lane = deployment.lanes.get(row.revision, deployment.lane)
    return replica_facts(row, lane, lanes.get(lane), processes, row.created_at, row.asked_at)
