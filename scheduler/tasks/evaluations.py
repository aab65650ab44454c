"""Evaluations: their answers are scored when somebody looks at one whose batch has ended."""

from threading import BoundedSemaphore

from loraplex.database import connect
from loraplex.store.files import FileStore
from scheduler.tasks.app import app, settings

_MOST_AT_ONCE = 2  # of a worker: imports and webhooks have the same threads
_AGAIN_S = 5.0
_engine = connect(settings.database)
_free = BoundedSemaphore(_MOST_AT_ONCE)


@app.task
def score_evaluation(evaluation_id: str) -> None:
    """Safe to ask for twice."""
    # Here: the scaler, which asks for it, has none of what it needs.
    from scheduler.evaluation import score

    if not _free.acquire(blocking=False):
        score_evaluation.apply_async((evaluation_id,), countdown=_AGAIN_S)
        return
    try:
        score(_engine, FileStore(settings.files_dir), evaluation_id)
    finally:
        _free.release()
