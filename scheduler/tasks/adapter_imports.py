"""Adapters' imports: which of them are to be run."""

from datetime import timedelta

from sqlalchemy import Engine, update
from sqlmodel import Session, col, select

from loraplex.compare_and_set import changed
from loraplex.database import connect
from loraplex.entities import UNFINISHED, AdapterImport, ImportState, utc_now
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
    for import_id in to_be_resumed(_engine, SILENT_S):
        import_adapter.delay(import_id)


def to_be_resumed(database: Engine, silent_s: float) -> list[str]:
    """Each is told once within so many seconds. Who ran one and lives finds it taken away."""
    now = utc_now()
    before = now - timedelta(seconds=silent_s)
    found = []
    with Session(database) as session:
        silent = (col(AdapterImport.state).in_(UNFINISHED), col(AdapterImport.beat_at) < before)
        for import_id in session.exec(select(AdapterImport.id).where(*silent)).all():
            one = update(AdapterImport).where(col(AdapterImport.id) == import_id, *silent)
            again = one.values(state=ImportState.QUEUED.value, runner="", beat_at=now)
            if changed(session, again):
                found.append(import_id)
            session.commit()
    return found


def next_in_line(database: Engine) -> list[str]:
    """The oldest that waits, of each tenant."""
    oldest = col(AdapterImport.created_at)
    wanted = select(AdapterImport.tenant_id, AdapterImport.id).where(
        AdapterImport.state == ImportState.QUEUED
    )
    with Session(database) as session:
        rows = session.exec(wanted.order_by(oldest.desc())).all()
    return list(dict(rows).values())
