"""Adapters' imports: which of them are to be run."""

from datetime import timedelta

from sqlmodel import Session, col, select

from loraplex.database import connect
from loraplex.entities import AdapterImport, ImportState, utc_now
from scheduler.tasks.app import app, settings

SILENT_S = 60.0  # then its worker is taken for dead
_engine = connect(settings.database)


@app.task
def import_adapter(import_id: str) -> None:
    """Safe to ask for twice: one of them runs it."""
    # Here: the scaler, which asks for it, has neither numpy nor S3's client.
    from scheduler.adapter_import import ImportRun

    run = ImportRun(_engine, settings, import_id)
    if run.begin(SILENT_S):
        run.carry_out()


@app.task
def resume_imports() -> None:
    """Those that nobody runs: their request was lost, or their worker died."""
    before = utc_now() - timedelta(seconds=SILENT_S)
    unfinished = (ImportState.QUEUED.value, ImportState.RUNNING.value)
    with Session(_engine) as session:
        left = select(AdapterImport.id).where(
            col(AdapterImport.state).in_(unfinished), col(AdapterImport.beat_at) < before
        )
        for import_id in session.exec(left).all():
            import_adapter.delay(import_id)
