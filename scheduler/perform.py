"""Actions → rows, Redis, tasks. The order inside each makes a crash after any line harmless: a row
first, then what it stands for.

All is done in the name of an epoch (`Rows`, `Lanes`): what a later leader has touched refuses it,
and `Deposed` ends the look.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatchmethod
from typing import Protocol

from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Event, Status
from scheduler import actions as do


class Rows(Protocol):
    """The database, written in the name of an epoch. All raise Deposed."""

    def move(self, deployment: str, seen: Status, event: Event, reason: str) -> None: ...
    def serve(self, deployment: str, revision: int, base_model: str) -> None: ...
    def take_back(
        self, deployment: str, seen: Status, target: int, revision: int, reason: str
    ) -> None:
        """Nothing when its status isn't `seen`, or its target another one."""

    def forgive(self, deployment: str) -> None: ...
    def intend(self, replica: do.Intend) -> bool:
        """False: there is a replica of this name."""

    def set_state(self, replica: str, state: ReplicaState) -> None: ...

    def became_ready(self, replica: str, served: int) -> None:
        """`served`: the goal that serves with it, whose failed starts are over; 0: of no goal."""

    def gone(self, replica: str, reason: str, failed: do.FailedStarts | None) -> None: ...

    def retire(self, deployment: str, revisions: Sequence[int] | None) -> None:
        """Revisions of which nothing is left; None: all."""

    def note(
        self, deployment: str, kind: str, reason: str, inputs: Mapping[str, float]
    ) -> None: ...

    def place_training(self, job: str, host: str, slot: int) -> bool:
        """False: it doesn't wait for one any more."""

    def yield_training(self, job: str) -> None: ...
    def free_training(self, job: str) -> None:
        """Nothing when somebody runs it."""


class Lanes(Protocol):
    """Redis, the same. All raise Deposed."""

    def order(self, lane: Lane, incarnation: str, *, drain: bool) -> bool: ...
    def close_idle(self, lane: Lane) -> bool: ...
    def open(self, lane: Lane) -> None: ...
    def shut(self, lane: Lane, reason: str) -> None: ...
    def answer_stranded(self, lane: Lane, code: str, error: str) -> int: ...
    def forget_replica(self, lane: Lane, incarnation: str) -> None: ...
    def forget_lane(self, lane: Lane) -> None: ...


class Tasks(Protocol):
    """The slow work. It goes by the rows: what a deposed leader asks for finds them changed."""

    def prepare(self, deployment: str) -> None: ...
    def start(self, replica: str) -> None: ...
    def stop(self, replica: str) -> None: ...
    def train(self, job: str) -> None: ...


class Performer:
    def __init__(self, rows: Rows, lanes: Lanes, tasks: Tasks) -> None:
        self._rows = rows
        self._lanes = lanes
        self._tasks = tasks

    def perform(self, actions: Iterable[do.Action]) -> None:
        for action in actions:
            self._do(action)

    @singledispatchmethod
    def _do(self, action: object) -> None:
        raise AssertionError(f"no such action: {action!r}")

    @_do.register
    def _(self, it: do.Move) -> None:
        self._rows.move(it.deployment, it.seen, it.event, it.reason)

    @_do.register
    def _(self, it: do.Serve) -> None:
        self._rows.serve(it.deployment, it.revision, it.base_model)

    @_do.register
    def _(self, it: do.TakeBack) -> None:
        self._rows.take_back(it.deployment, it.seen, it.target, it.revision, it.reason)

    @_do.register
    def _(self, it: do.Forgive) -> None:
        self._rows.forgive(it.deployment)

    @_do.register
    def _(self, it: do.Intend) -> None:
        if self._rows.intend(it):
            self._tasks.start(it.id)

    @_do.register
    def _(self, it: do.Ask) -> None:
        self._rows.set_state(it.id, ReplicaState.STARTING)
        self._tasks.start(it.id)

    @_do.register
    def _(self, it: do.BecameReady) -> None:
        self._rows.became_ready(it.id, it.served)

    @_do.register
    def _(self, it: do.Gone) -> None:
        self._rows.gone(it.id, it.reason, it.failed)
        self._rows.note(it.deployment, "replica_gone", f"{it.id}: {it.reason}", {})
        self._tasks.stop(it.id)

    @_do.register
    def _(self, it: do.EndOrphan) -> None:
        self._tasks.stop(it.id)

    @_do.register
    def _(self, it: do.Order) -> None:
        if self._lanes.order(it.lane, it.incarnation, drain=it.drain):
            state = ReplicaState.DRAINING if it.drain else ReplicaState.READY
            self._rows.set_state(it.id, state)

    @_do.register
    def _(self, it: do.ScaleToZero) -> None:
        if self._lanes.close_idle(it.lane):
            self.perform(it.orders)

    @_do.register
    def _(self, it: do.Prepare) -> None:
        self._tasks.prepare(it.deployment)

    @_do.register
    def _(self, it: do.OpenGate) -> None:
        self._lanes.open(it.lane)

    @_do.register
    def _(self, it: do.ShutGate) -> None:
        self._lanes.shut(it.lane, it.reason)

    @_do.register
    def _(self, it: do.AnswerStranded) -> None:
        self._lanes.answer_stranded(it.lane, it.code, it.reason)

    @_do.register
    def _(self, it: do.ForgetReplica) -> None:
        self._lanes.forget_replica(it.lane, it.incarnation)

    @_do.register
    def _(self, it: do.ForgetLane) -> None:
        self._lanes.forget_lane(it.lane)
        self._rows.retire(it.deployment, it.revisions)

    @_do.register
    def _(self, it: do.Retire) -> None:
        self._rows.retire(it.deployment, it.revisions)

    @_do.register
    def _(self, it: do.Note) -> None:
        self._rows.note(it.deployment, it.kind, it.reason, it.inputs)

    @_do.register
    def _(self, it: do.PlaceTraining) -> None:
        if self._rows.place_training(it.job, it.host, it.slot):
            self._tasks.train(it.job)

    @_do.register
    def _(self, it: do.YieldTraining) -> None:
        self._rows.yield_training(it.job)

    @_do.register
    def _(self, it: do.FreeTraining) -> None:
        self._rows.free_training(it.job)
