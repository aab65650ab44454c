"""What the scaler sees in one look: values out of the database, Redis and the driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from scheduler.drivers.base import Running
from scheduler.scaling import Scaling


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
    status: Status
    reason: str
    scaling: Scaling  # as its schedules have it now
    priority: int
    lane: Lane  # where requests go
    revision: int  # what serves
    target: int  # what shall serve
    target_lane: Lane
    prepared: int  # newest revision whose artefacts are in the store
    failed_starts: int  # in a row
    retry_at: float | None
    starts: int  # replicas that it ever had
    retiring: tuple[tuple[int, Lane], ...] = ()  # lanes of former base models, by revision
    forgotten: bool = False  # deleted, and nothing is left of it


@dataclass(frozen=True, slots=True)
class World:
    """Everything at one instant. Lanes that are missing were not heard of: that is not zero."""

    now: float
    deployments: Sequence[DeploymentFacts]
    replicas: Mapping[str, Sequence[ReplicaFacts]]  # by deployment, oldest first
    lanes: Mapping[Lane, SeenLane]
    driver_heard: bool = True  # False: nothing is known of processes
    orphans: Sequence[str] = field(default_factory=tuple)  # processes that no row wants
