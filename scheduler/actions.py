"""What a reconciler may do, as values: `reconcile.py` decides on them, `perform.py` does them.

Each is safe to do twice, and safe to be the last one before a crash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loraplex.keys import Lane
from loraplex.status import Event, Status


@dataclass(frozen=True, slots=True)
class Move:
    """The status, by the one table; nothing when the deployment isn't in `seen` any more."""

    deployment: str
    seen: Status
    event: Event
    reason: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Requests go to this revision from now on, and to the lane of its base model."""

    deployment: str
    revision: int
    base_model: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """A change that didn't start: what served last is the target again, and the status says why.
    Nothing when status or target aren't as they were seen."""

    deployment: str
    seen: Status
    target: int
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """Failed starts of before count no more."""

    deployment: str


@dataclass(frozen=True, slots=True)
class Intend:
    """A replica's row, before anything is started; then ask for its start."""

    id: str
    deployment: str
    ordinal: int
    revision: int
    host: str
    slot: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask (again) for the start of a replica whose row is there."""

    id: str
    deployment: str


@dataclass(frozen=True, slots=True)
class BecameReady:
    """A replica is ready: its row says so, and that starts succeed; `served`: the goal that serves
    with it, 0 for a replica of another revision."""

    id: str
    deployment: str
    served: int


@dataclass(frozen=True, slots=True)
class FailedStarts:
    """In a row, of the deployment's goal; they say nothing of another target than `target`."""

    count: int
    retry_at: float
    target: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A replica is no more: its row says so, then its process is ended."""

    id: str
    deployment: str
    reason: str
    failed: FailedStarts | None = None


@dataclass(frozen=True, slots=True)
class EndOrphan:
    """A process that no row wants."""

    id: str


@dataclass(frozen=True, slots=True)
class Order:
    """Tell a replica to drain, or to serve after all; its row follows when it was told."""

    id: str
    lane: Lane
    incarnation: str
    drain: bool


@dataclass(frozen=True, slots=True)
class ScaleToZero:
    """Close the gate if the lane is empty, and only then drain its replicas."""

    lane: Lane
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask for a revision's artefacts."""

    deployment: str


@dataclass(frozen=True, slots=True)
class OpenGate:
    lane: Lane


@dataclass(frozen=True, slots=True)
class ShutGate:
    """Take no more requests; `reason` is what their senders read."""

    lane: Lane
    reason: str


@dataclass(frozen=True, slots=True)
class AnswerStranded:
    """Answer every job that no living replica has with an error."""

    lane: Lane
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ForgetReplica:
    """A report that nobody will renew."""

    lane: Lane
    incarnation: str


@dataclass(frozen=True, slots=True)
class ForgetLane:
    """What a deleted deployment, or a former base model, leaves behind."""

    lane: Lane
    deployment: str
    revisions: Sequence[int] | None = None  # None: all of them, the deployment is deleted


@dataclass(frozen=True, slots=True)
class Retire:
    """Revisions of which nothing is left, on lanes that others use."""

    deployment: str
    revisions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Note:
    """An event that is no change of status."""

    deployment: str
    kind: str
    reason: str
    inputs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlaceTraining:
    """A fine-tuning job's place, then ask for its run; the same again asks again."""

    job: str
    host: str
    slot: int


@dataclass(frozen=True, slots=True)
class YieldTraining:
    """Tell a job to write a checkpoint and leave its place."""

    job: str


@dataclass(frozen=True, slots=True)
class FreeTraining:
    """A job that nobody runs leaves its place at once; nothing where somebody runs it after all."""

    job: str


Action = (
    Move
    | Serve
    | TakeBack
    | Forgive
    | Intend
    | Ask
    | BecameReady
    | Gone
    | EndOrphan
    | Order
    | ScaleToZero
    | Prepare
    | OpenGate
    | ShutGate
    | AnswerStranded
    | ForgetReplica
    | ForgetLane
    | Retire
    | Note
    | PlaceTraining
    | YieldTraining
    | FreeTraining
)


def of(action: Action) -> str:
    """The deployment that an action is about; of an orphan, its own id, of a training the job."""
    if isinstance(action, EndOrphan):
        return action.id
    if isinstance(action, PlaceTraining | YieldTraining | FreeTraining):
        return action.job
    if isinstance(action, Order | ScaleToZero | OpenGate | ShutGate | AnswerStranded):
        return action.lane.deployment_id
    if isinstance(action, ForgetReplica):
        return action.lane.deployment_id
    return action.deployment
