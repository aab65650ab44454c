"""Celery's tasks in virtual time: late, lost or done twice, but never what the row forbids."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import ADMITTING, Event, Status
from scheduler.drivers.base import ReplicaSpec
from scheduler.simulator.loop import Loop
from scheduler.simulator.replicas import SimReplicas
from scheduler.simulator.rows import DeploymentRow, Tables


@dataclass(slots=True)
class TaskFaults:
    """Shares of tasks."""

    lost: float = 0.0
    doubled: float = 0.0
    slowest_s: float = 0.05
    prepare_fails: float = 0.0


class SimTasks:
    """The same looks at the rows as in `scheduler/tasks`."""

    def __init__(
        self,
        loop: Loop,
        tables: Tables,
        replicas: SimReplicas,
        random_: random.Random,
        faults: TaskFaults,
    ) -> None:
        self._loop = loop
        self._tables = tables
        self._replicas = replicas
        self._random = random_
        self.faults = faults

    def _queue(self, task: Callable[[], None]) -> None:
        if self._random.random() < self.faults.lost:
            return
        for _ in range(1 + (self._random.random() < self.faults.doubled)):
            self._loop.after(self._random.uniform(0.0, self.faults.slowest_s), task)

    def start(self, replica: str) -> None:
        self._queue(lambda: self._start(replica))

    def stop(self, replica: str) -> None:
        self._queue(lambda: self._stop(replica))

    def prepare(self, deployment: str) -> None:
        row = self._tables.deployments[deployment]
        target = row.target
        self._queue(lambda: self._prepare(row, target))

    def _start(self, replica: str) -> None:
        row = self._tables.replicas.get(replica)
        if row is None or row.state != ReplicaState.STARTING:
            return
        deployment = self._tables.deployments[row.deployment]
        lane: Lane = deployment.lane_of(row.revision)
        self._replicas.driver.start(ReplicaSpec(replica, lane.name, row.host, row.slot))

    def _stop(self, replica: str) -> None:
        row = self._tables.replicas.get(replica)
        if row is not None and row.state != ReplicaState.GONE:
            return
        self._replicas.driver.stop(replica)
        self._replicas.stopped(replica)

    def _prepare(self, row: DeploymentRow, target: int) -> None:
        behind = row.prepared < row.target and row.status in ADMITTING
        if row.target != target or not (row.status == Status.PENDING or behind):
            return
        if self._random.random() < self.faults.prepare_fails:
            if row.status == Status.UPDATING:
                row.target = row.revision
            self._tables.move(row, Event.ARTEFACTS_FAILED, "it can't be fetched")
            return
        row.prepared = row.target
        self._tables.move(row, Event.ARTEFACTS_READY, "it is in the store")
