"""What a task worker tells Prometheus. It is imported; Celery's signals do the rest."""

import time
from contextlib import ExitStack
from typing import Any

from celery.signals import task_postrun, task_prerun, worker_ready, worker_shutdown
from prometheus_client import Counter, Histogram

from loraplex.broker.connection import connect
from loraplex.metrics.families import registry_of_process
from loraplex.metrics.served import serving_metrics
from loraplex.settings import Settings
from loraplex.totals import SECONDS

registry = registry_of_process()

_tasks = Counter(
    "loraplex_tasks",
    "Tasks that have ended, by how: SUCCESS, FAILURE, RETRY.",
    ["task", "state"],
    registry=registry,
)
_seconds = Histogram(
    "loraplex_task_seconds", "How long a task took.", ["task"], buckets=SECONDS, registry=registry
)
_begun: dict[str, float] = {}  # by task's id


@task_prerun.connect
def _begins(task_id: str, **_: Any) -> None:
    _begun[task_id] = time.monotonic()


@task_postrun.connect
def _ended(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    name = task.name.removeprefix("scheduler.tasks.")
    _tasks.labels(name, state or "UNKNOWN").inc()
    _seconds.labels(name).observe(time.monotonic() - _begun.pop(task_id, time.monotonic()))


_until_end = ExitStack()


@worker_ready.connect
def _ready(**_: Any) -> None:
    settings = Settings()
    client = connect(settings.redis_url)
    _until_end.enter_context(serving_metrics(registry, settings, client, "tasks"))


@worker_shutdown.connect
def _ends(**_: Any) -> None:
    _until_end.close()
