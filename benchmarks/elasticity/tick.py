"""One look at 1,000 deployments: the real scaler on a real Valkey and SQLite; how long, how many
round trips. A tenth of the deployments have work, and a replica that serves it."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlmodel import Session

from loraplex.broker.connection import connect
from loraplex.broker.worker import WorkerBroker
from loraplex.database import connect as connect_database
from loraplex.database import migrate
from loraplex.embedded.ports import free_port
from loraplex.embedded.valkey import find_server, write_config
from loraplex.entities import Deployment, Replica, Revision, Tenant
from loraplex.garbage import collect_less
from loraplex.keys import Lane
from loraplex.messages import ReplicaReport
from loraplex.replica_state import ReplicaState
from loraplex.settings import ScalerSettings
from loraplex.status import Status
from scheduler.scaler import Scaler

_BUSY = 10  # each so many-th deployment has a replica


def measure_tick(deployments: int, looks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, _valkey(Path(folder)) as url:
        settings = ScalerSettings(
            home=Path(folder),
            redis_url=url,
            fleet={"local": deployments},
            start_timeout_s=1e6,
        )
        migrate(settings.database)
        _fill(settings, deployments)
        scaler = Scaler(settings)
        collect_less()  # as the scaler's process does
        commands, queries = _Count(), _Count()
        _count_commands(scaler, commands)
        event.listen(scaler._rows._database, "before_cursor_execute", queries.add)
        scaler._turn()  # leads, and settles what is new
        scaler._turn()
        commands.value = queries.value = 0
        seconds = []
        for _ in range(looks):
            started = time.perf_counter()
            scaler._turn()
            seconds.append(time.perf_counter() - started)
        ordered = sorted(seconds)
        return {
            "deployments": deployments,
            "p50_ms": round(1000 * statistics.median(seconds), 1),
            "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 1),
            "redis_round_trips": commands.value / looks,
            "sql_queries": queries.value / looks,
        }


class _Count:
    def __init__(self) -> None:
        self.value = 0

    def add(self, *_: Any) -> None:
        self.value += 1


def _count_commands(scaler: Scaler, count: _Count) -> None:
    """Of the broker's client: a pipeline is one."""
    client: Any = scaler._broker._redis
    execute, pipeline = client.execute_command, client.pipeline

    def counted(*args: Any, **options: Any) -> Any:
        count.add()
        return execute(*args, **options)

    def counted_pipeline(*args: Any, **options: Any) -> Any:
        made = pipeline(*args, **options)
        run = made.execute
        made.execute = lambda *a, **o: (count.add(), run(*a, **o))[1]
        return made

    client.execute_command, client.pipeline = counted, counted_pipeline


def _fill(settings: ScalerSettings, deployments: int) -> None:
    redis = connect(settings.redis_url)
    with Session(connect_database(settings.database)) as session:
        session.add(Tenant(id="t"))
        session.flush()
        for number in range(deployments):
            row = Deployment(
                tenant_id="t",
                name=f"d{number}",
                base_model="org/model",
                min_replicas=0,
                max_replicas=1,
                cooldown_time=3600,
                scale_up_threshold=16,
                prepared=1,
                status=Status.STANDBY.value,
            )
            session.add(row)
            session.flush()
            session.add(Revision(deployment_id=row.id, number=1, base_model="org/model"))
            if number % _BUSY == 0:
                row.status = Status.READY.value
                state = ReplicaState.READY.value
                session.add(
                    Replica(id=f"rep-{number}", deployment_id=row.id, slot=number, state=state)
                )
                lane = Lane("org/model", row.id)
                worker = WorkerBroker(redis, lane, f"rep-{number}:0", lease_s=3600)
                worker.register(ReplicaReport(f"rep-{number}", "ready", time.time(), capacity=16))
                redis.xadd(lane.jobs, {"j": b"", "r": "r", "to": "api", "after": "0-0"})
        session.commit()


@contextmanager
def _valkey(home: Path) -> Iterator[str]:
    port = free_port()
    config = write_config(home / "valkey", port, "secret")
    server = subprocess.Popen([str(find_server()), str(config)], stdout=subprocess.DEVNULL)
    url = f"redis://:secret@127.0.0.1:{port}/0"
    try:
        client = connect(url)
        while True:
            try:
                client.ping()
                break
            except Exception:
                if server.poll() is not None:
                    raise
        yield url
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    import json
    import sys

    sys.stdout.write(json.dumps(measure_tick(1000, 100)) + "\n")
