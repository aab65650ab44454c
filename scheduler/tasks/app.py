"""The Celery application; its workers: `celery -A scheduler.tasks.app worker -Q tasks,imports`."""

from typing import Any

from celery import Celery
from celery.signals import heartbeat_sent

from loraplex.keys import CELERY_PREFIX
from loraplex.settings import ScalerSettings

settings = ScalerSettings()
_SLOW = ("imports", "adapter_imports", "deliveries", "budgets", "evaluations", "storage")

app = Celery("loraplex", broker=settings.tasks_redis)
app.conf.update(
    include=[
        "scheduler.tasks.adapter_imports",
        "scheduler.tasks.budgets",
        "scheduler.tasks.compare",
        "scheduler.tasks.deliveries",
        "scheduler.tasks.evaluations",
        "scheduler.tasks.imports",
        "scheduler.tasks.metrics",
        "scheduler.tasks.replicas",
        "scheduler.tasks.storage",
        "scheduler.tasks.training",
    ],
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="tasks",
    # A download may take an hour, a webhook ten seconds: nothing of it stands before the start of a
    # replica.
    task_routes={f"scheduler.tasks.{name}.*": {"queue": "imports"} for name in _SLOW}
    | {"scheduler.tasks.training.run_training": {"queue": "training"}},
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "global_keyprefix": CELERY_PREFIX,
        "visibility_timeout": 3600,
        "socket_timeout": 30,
    },
    worker_hijack_root_logger=False,
)


@heartbeat_sent.connect
def _tell_that_it_works(**_: Any) -> None:
    if settings.alive_file is not None:
        settings.alive_file.touch()
