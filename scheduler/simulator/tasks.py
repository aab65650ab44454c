"""Celery's tasks in virtual time: late, lost or done twice, but never what the row forbids."""

import random
from collections.abc import Callable
from dataclasses import dataclass

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
    longest_fetch_s: float = 0.0
    fetch_fails: float = 0.0
    longest_end_s: float = 0.0  # of a process, from its signal on


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

    def train(self, job: str) -> None:
        self._queue(lambda: self._tables.trainings.begin(job))

    def prepare(self, deployment: str) -> None:
        row = self._tables.deployments[deployment]
        self._queue(lambda: self._fetch(row))

    def _fetch(self, row: DeploymentRow) -> None:
        if not self._wanted(row):
            return
        target, fails = row.target, self._random.random() < self.faults.fetch_fails
        seconds = self._random.uniform(0.0, self.faults.longest_fetch_s)
        self._loop.after(seconds, lambda: self._fetched(row, target, fails))

    def _start(self, replica: str) -> None:
        row = self._tables.replicas.get(replica)
        if row is None or row.state != ReplicaState.STARTING:
            return
        deployment = self._tables.deployments[row.deployment]
        lane = deployment.lanes.get(row.revision, deployment.lane)
        self._replicas.driver.start(ReplicaSpec(replica, lane.name, row.host, row.slot))

    def _stop(self, replica: str) -> None:
        row = self._tables.replicas.get(replica)
        if row is not None and row.state != ReplicaState.GONE:
            return
        self._replicas.stopped(replica)
        seconds = self._random.uniform(0.0, self.faults.longest_end_s)
        self._loop.after(seconds, lambda: self._replicas.driver.stop(replica))

    @staticmethod
    def _wanted(row: DeploymentRow) -> bool:
        behind = row.prepared < row.target and row.status in ADMITTING
        return row.status == Status.PENDING or behind

    def _fetched(self, row: DeploymentRow, target: int, fails: bool) -> None:
        if row.target != target or not self._wanted(row):
            return
        if not fails:
            row.prepared, row.failed_starts, row.retry_at = target, 0, None
            self._tables.move(row, Event.ARTEFACTS_READY, "it is in the store")
            return
        if row.status != Status.PENDING:
            row.target = row.revision
        self._tables.move(row, Event.ARTEFACTS_FAILED, "it can't be fetched")
