"""Fine-tuning jobs: which of them are to be run."""

import threading
from collections import Counter

from celery.signals import worker_shutting_down
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.database import connect
from loraplex.entities import TrainingJob, WorkState
from scheduler.claim import to_be_resumed
from scheduler.tasks.app import app, settings

SILENT_S = 30.0  # then its worker is taken for dead
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
    if run.begin(SILENT_S):
        run.carry_out()
        for waiting in next_in_line(_engine, settings.training_jobs):
            run_training.delay(waiting)


@app.task
def resume_training() -> None:
    """Those that nobody runs, the oldest first."""
    for job_id in to_be_resumed(_engine, TrainingJob, SILENT_S):
        run_training.delay(job_id)


def next_in_line(database: Engine, most: int) -> list[str]:
    """Those that wait: one of each tenant before a second one of any, the oldest first."""
    wanted = select(TrainingJob.tenant_id, TrainingJob.id).where(
        TrainingJob.state == WorkState.QUEUED
    )
    with Session(database) as session:
        rows = session.exec(wanted.order_by(col(TrainingJob.created_at))).all()
    turns: Counter[str] = Counter()
    ranked = []
    for place, (tenant, job) in enumerate(rows):
        ranked.append((turns[tenant], place, job))
        turns[tenant] += 1
    return [job for _, _, job in sorted(ranked)[:most]]
