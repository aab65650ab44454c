"""What the scaler sees in one look: values out of the database, Redis and the driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from scheduler.drivers.base import Running
from scheduler.placement import Place
from scheduler.scaling import Scaling
from scheduler.trainings import TrainingFacts


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """A replica that is not gone: its row, its process, what it says of itself."""

    id: str
    lane: Lane
    revision: int
    state: ReplicaState
    host: str
    slot: int
    created_at: float  # times are Unix seconds of Redis' clock
    asked_at: float  # its latest start or order
    process: Running | None = None
    seen: SeenReplica | None = None  # its newest incarnation
    trouble: str = ""  # what stands in the way of its start

    @property
    def running(self) -> int:
        return self.seen.report.running if self.seen else 0

    @property
    def alive(self) -> bool:
        """Its lease holds."""
        return self.seen is not None and self.seen.alive


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    id: str
    name: str
    tenant: str
    status: Status
    reason: str
    scaling: Scaling  # as its schedules have it now
    priority: int
    lane: Lane  # where requests go
    lanes: Mapping[int, Lane]  # by revision, without those of which nothing is left
    revision: int  # what `lane` belongs to
    target: int  # what shall serve
    prepared: int  # newest revision whose artefacts are in the store
    served: int  # the latest goal that had a ready replica; 0: none yet
    failed_starts: int  # of the goal, in a row
    retry_at: float | None
    starts: int  # replicas that it ever had

    @property
    def goal(self) -> int:
        """What replicas are started of: the target, once its artefacts are here."""
        return self.target if self.prepared >= self.target else self.revision

    @property
    def goal_lane(self) -> Lane:
        return self.lanes.get(self.goal, self.lane)

    @property
    def on_trial(self) -> bool:
        """Another base model that has not served yet: what served last takes the requests until it
        has a ready replica, so that one that can't start disturbs nobody."""
        return self.goal_lane != self.lane and self.served not in (0, self.goal)

    @property
    def retiring(self) -> dict[Lane, list[int]]:
        """Lanes that requests go to no more, with their revisions."""
        found: dict[Lane, list[int]] = {}
        if len(self.lanes) <= 1:  # nearly all deployments at nearly all times
            return found
        in_use = (self.lane, self.goal_lane, self.lanes.get(self.target))
        for revision, lane in self.lanes.items():
            if lane not in in_use:
                found.setdefault(lane, []).append(revision)
        return found


class DeploymentRow(Protocol):
    """What facts are made of, in the database and in the simulator."""

    id: str
    status: Any
    reason: str
    priority: int
    revision: int
    target: int
    prepared: int
    served: int
    failed_starts: int
    starts: int

    @property
    def name(self) -> str: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def lane(self) -> Lane: ...


def deployment_facts(
    row: DeploymentRow, lanes: Mapping[int, Lane], scaling: Scaling, retry_at: float | None
) -> DeploymentFacts:
    return DeploymentFacts(
        id=row.id,
        name=row.name,
        tenant=row.tenant_id,
        status=Status(row.status),
        reason=row.reason,
        scaling=scaling,
        priority=row.priority,
        lane=row.lane,
        lanes=lanes,
        revision=row.revision,
        target=row.target,
        prepared=row.prepared,
        served=row.served,
        failed_starts=row.failed_starts,
        retry_at=retry_at,
        starts=row.starts,
    )


class ReplicaRow(Protocol):
    id: str
    revision: int
    state: Any
    host: str
    slot: int
    reason: str


def replica_facts(
    row: ReplicaRow,
    lane: Lane,
    seen: SeenLane | None,
    processes: Mapping[str, Running] | None,
    created_at: float,
    asked_at: float,
) -> ReplicaFacts:
    """`seen`: its lane; `processes` None: the driver doesn't answer."""
    mine = [r for r in seen.by_age() if r.report.replica == row.id] if seen else []
    return ReplicaFacts(
        id=row.id,
        lane=lane,
        revision=row.revision,
        state=ReplicaState(row.state),
        host=row.host,
        slot=row.slot,
        created_at=created_at,
        asked_at=asked_at,
        process=(processes or {}).get(row.id),
        seen=mine[-1] if mine else None,
        trouble=row.reason,
    )


@dataclass(frozen=True, slots=True)
class World:
    """Everything at one instant. Lanes that are missing were not heard of: that is not zero."""

    now: float
    deployments: Sequence[DeploymentFacts]
    replicas: Mapping[str, Sequence[ReplicaFacts]]  # by deployment, oldest first
    lanes: Mapping[Lane, SeenLane]
    driver_heard: bool = True  # False: nothing is known of processes
    orphans: Sequence[str] = ()  # processes that no row wants
    unread: frozenset[str] = frozenset()  # deployments whose rows can't be understood
    taken: frozenset[Place] = frozenset()  # by orphans and the unread: nobody may start there yet
    trainings: Sequence[TrainingFacts] = ()  # those that have a place, or want one
