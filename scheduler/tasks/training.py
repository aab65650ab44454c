"""Fine-tuning jobs: the scaler gives them places, a worker runs them there."""

import threading

from celery.signals import worker_shutting_down

from loraplex.database import connect
from scheduler.tasks.app import app, settings

_engine = connect(settings.database)
_stopping = threading.Event()


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    """What runs writes a checkpoint, and goes on at another worker."""
    _stopping.set()


@app.task
def run_training(job_id: str) -> None:
    """Safe to ask for twice: one of them runs it."""
    # Here: the scaler, which asks for it, has none of what it needs.
    from scheduler.training_run import TrainingRun

    run = TrainingRun(_engine, settings, job_id, _stopping.is_set)
    if run.begin():
        run.carry_out()
