"""Adapters' imports: which of them are to be run."""

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.database import connect
from loraplex.entities import AdapterImport, WorkState
from scheduler.claim import to_be_resumed
from scheduler.tasks.app import app, settings

SILENT_S = 15.0  # then its worker is taken for dead
_engine = connect(settings.database)


@app.task
def import_adapter(import_id: str) -> None:
    """Safe to ask for twice: one of them runs it."""
    # Here: the scaler, which asks for it, has neither numpy nor S3's client.
    from scheduler.adapter_import import ImportRun

    run = ImportRun(_engine, settings, import_id)
    if run.begin(SILENT_S):
        run.carry_out()
        for waiting in next_in_line(_engine):
            import_adapter.delay(waiting)


@app.task
def resume_imports() -> None:
    """Those that nobody runs: their request was lost, they wait for others of their tenant, or
    their worker died."""
    for import_id in to_be_resumed(_engine, AdapterImport, SILENT_S):
        import_adapter.delay(import_id)


def next_in_line(database: Engine) -> list[str]:
    """The oldest that waits, of each tenant."""
    oldest = col(AdapterImport.created_at)
    wanted = select(AdapterImport.tenant_id, AdapterImport.id).where(
        AdapterImport.state == WorkState.QUEUED
    )
    with Session(database) as session:
        rows = session.exec(wanted.order_by(oldest.desc())).all()
    return list(dict(rows).values())
