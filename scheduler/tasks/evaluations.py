"""Evaluations: their answers are scored when somebody looks at one whose batch has ended."""

from loraplex.database import connect
from loraplex.store.files import FileStore
from scheduler.tasks.app import app, settings

_engine = connect(settings.database)


@app.task
def score_evaluation(evaluation_id: str) -> None:
    """Safe to ask for twice."""
    # Here: the scaler, which asks for it, has none of what it needs.
    from scheduler.evaluation import score

    score(_engine, FileStore(settings.files_dir), evaluation_id)
