"""What the scaler's look at an installation costs, by deployments and replicas.

Rows in a database, lanes in Valkey, replicas that have just reported and are busy: what
`scheduler/scaler.py` does between two wake-ups, without anything to start or stop.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import redis
from sqlmodel import Session

from benchmarks.capacity.cpu import cpu_s
from loraplex.broker.scaler import ScalerBroker
from loraplex.broker.worker import WorkerBroker
from loraplex.database import connect, migrate
from loraplex.entities import Deployment, Replica, Revision, Tenant
from loraplex.garbage import collect_less
from loraplex.keys import Lane
from loraplex.messages import ReplicaReport
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from scheduler.charts import Charts
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.fake import FakeDriver
from scheduler.housekeeping import Housekeeping
from scheduler.judge import Limits
from scheduler.memory import Memory
from scheduler.observe import observe
from scheduler.placement import Fleet
from scheduler.reconcile import Rules, reconcile
from scheduler.rows import SqlRows
from scheduler.usage import UsageCollector

HOST = "gpu"


@dataclass(frozen=True, slots=True)
class LookCost:
    deployments: int
    replicas: int
    seconds: float  # of a look, median
    redis_s: float  # of these, Redis' CPU


class Installation:
    """So many deployments with so many replicas each, all of them serving."""

    def __init__(self, client: redis.Redis, server: int, home: Path, each: int) -> None:
        self._redis, self._server, self._each = client, psutil.Process(server), each
        url = f"sqlite:///{home / 'look.db'}"
        migrate(url)
        self._database = connect(url)
        self._deployments = 0
        self._driver = FakeDriver(time.time)
        with Session(self._database) as session:
            session.add(Tenant(id="t"))
            session.commit()

    def grow(self, deployments: int) -> None:
        """To so many."""
        now = datetime.now(UTC)
        with Session(self._database) as session:
            for number in range(self._deployments, deployments):
                name = f"dep-{number:05}"
                session.add(
                    Deployment(
                        id=name,
                        tenant_id="t",
                        name=name,
                        base_model="org/model",
                        status=Status.READY.value,
                        min_replicas=self._each,
                        max_replicas=self._each,
                        cooldown_time=60,
                        scale_up_threshold=1000,
                        prepared=1,
                    )
                )
                session.flush()
                session.add(Revision(deployment_id=name, number=1, base_model="org/model"))
                for ordinal in range(self._each):
                    replica = f"rep-{number:05}-{ordinal}"
                    session.add(
                        Replica(
                            id=replica,
                            deployment_id=name,
                            host=HOST,
                            slot=number * self._each + ordinal,
                            state=ReplicaState.READY.value,
                            ready_at=now,
                        )
                    )
                    self._driver.start(ReplicaSpec(replica, f"org/model#{name}", HOST))
                    self._register(Lane("org/model", name), replica)
            session.commit()
        self._deployments = deployments

    def _register(self, lane: Lane, replica: str) -> None:
        report = ReplicaReport(replica, "ready", time.time(), running=100, capacity=100)
        broker = WorkerBroker(self._redis, lane, f"{replica}:0", lease_s=3600)
        broker.register(report)

    def look(self, looks: int) -> LookCost:
        rows, broker = SqlRows(self._database), ScalerBroker(self._redis, "scaler-capacity")
        rows.epoch = broker.epoch = broker.lead(3600, rows.latest_epoch()) or 0
        memory, charts = Memory(broker), Charts(rows, {HOST: 1.0})
        charts.load()
        places = self._deployments * self._each
        rules = Rules(fleet=Fleet({HOST: places}), limits=Limits(300, 660), cold_start_s=30)
        keeping = Housekeeping(broker, rows, retention_s=600)
        usage = UsageCollector(self._database, broker)
        took, before = [], 0.0
        collect_less()  # as the scaler
        for number in range(looks + 1):  # the first learns what there is
            if number == 1:
                before = cpu_s(self._server)
            began = time.perf_counter()
            world = observe(rows, broker, self._driver)
            look = reconcile(world, memory.known, rules)
            assert not look.actions and not look.failed, (look.actions[:3], look.failed)
            memory.learn(look, rules)
            keeping.run(list(world.lanes))
            usage.run(world.lanes)
            charts.look(world)
            took.append(time.perf_counter() - began)
        spent = cpu_s(self._server) - before
        broker.resign()
        return LookCost(self._deployments, places, float(np.median(took[1:])), spent / looks)
