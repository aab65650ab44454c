"""Remove what nobody needs any more: files of deleted adapters, uploads that were not completed."""

import logging
import shutil
from datetime import timedelta

from sqlalchemy import Engine, delete
from sqlmodel import Session, col, or_, select

from loraplex.database import connect
from loraplex.entities import (
    UNFINISHED,
    Adapter,
    AdapterImport,
    CapturedExchange,
    Deployment,
    TrainingEvent,
    TrainingJob,
    utc_now,
)
from loraplex.status import Status
from loraplex.store.adapter_folders import AdapterFolders, older
from loraplex.store.remote_adapters import RemoteAdapters, remote_of
from loraplex.store.staging import Staging
from scheduler.tasks.app import app, settings

log = logging.getLogger(__name__)
_UPLOAD_S = 2 * 3600.0  # twice as long as its URL is valid
_ENDED_DAYS = 90
_engine = connect(settings.database)


@app.task
def clean_storage() -> None:
    """Safe to run at any time, and twice."""
    kept_s = settings.storage_kept_s
    folders = AdapterFolders(settings.adapters_dir)
    removed = clean_adapters(_engine, folders, kept_s, remote_of(settings))
    folders.remove_unfinished(kept_s)
    uploads = Staging(settings.uploads_dir).forget_older(_UPLOAD_S)
    _forget_ended()
    _clean_trainings()
    _forget_exchanges()
    if removed or uploads:
        log.info("removed: %d adapters' files, %d uploads", removed, uploads)


def _forget_ended() -> None:
    """Rows of imports and trainings; what came of them stays."""
    since = utc_now() - timedelta(days=_ENDED_DAYS)
    with Session(_engine) as session:
        ended = (col(AdapterImport.state).not_in(UNFINISHED), col(AdapterImport.created_at) < since)
        session.execute(delete(AdapterImport).where(*ended))
        over = (
            col(TrainingJob.state).not_in(UNFINISHED),
            col(TrainingJob.created_at) < since,
        )
        jobs = select(TrainingJob.id).where(*over)
        session.execute(delete(TrainingEvent).where(col(TrainingEvent.job_id).in_(jobs)))
        session.execute(delete(TrainingJob).where(*over))
        session.commit()


def _forget_exchanges() -> None:
    """What was captured long ago, and of deployments that were deleted."""
    since = utc_now() - timedelta(days=settings.capture_days)
    gone = select(Deployment.id).where(Deployment.status == Status.DELETED)
    old = or_(col(CapturedExchange.at) < since, col(CapturedExchange.deployment_id).in_(gone))
    with Session(_engine) as session:
        session.execute(delete(CapturedExchange).where(old))
        session.commit()


def _clean_trainings() -> None:
    """Folders of jobs that were cancelled while nobody ran them."""
    if not settings.training_dir.is_dir():
        return
    folders = list(settings.training_dir.iterdir())
    with Session(_engine) as session:
        wanted = select(TrainingJob.id).where(col(TrainingJob.state).in_(UNFINISHED))
        unfinished = set(session.exec(wanted))
    for folder in folders:
        if folder.name not in unfinished and older(folder, _UPLOAD_S):
            shutil.rmtree(folder, ignore_errors=True)


def clean_adapters(
    database: Engine, store: AdapterFolders, kept_s: float, remote: RemoteAdapters | None = None
) -> int:
    """Those of versions that were deleted so long ago, and what was stored for no version: how
    many. A request that was accepted before its adapter was deleted must have ended by then.

    With a remote store, also copies here that nobody used for so long.
    """
    unused = store.unused(kept_s)
    live = _live(database, kept_s)
    if remote is None:
        return sum(store.remove(digest, kept_s) for digest in unused if digest not in live)
    for digest in unused:
        store.remove(digest, kept_s)
    for digest in remote.aside():  # by who died meanwhile
        _decide(remote, digest, live)
    dead = [digest for digest in remote.older(kept_s) if digest not in live]
    return sum(_removed(database, remote, digest, kept_s) for digest in dead)


def _removed(database: Engine, remote: RemoteAdapters, digest: str, kept_s: float) -> bool:
    """Nobody can lock an object store: who registers the same content at this moment finds it
    there, or it is brought back, or it stores it anew (`AdapterStore.ensure`)."""
    remote.set_aside(digest)
    return _decide(remote, digest, _live(database, kept_s))


def _decide(remote: RemoteAdapters, digest: str, live: set[str]) -> bool:
    """About one that is set aside: whether it is gone."""
    if digest in live:
        remote.bring_back(digest)
        return False
    remote.delete_aside(digest)
    return True


def _live(database: Engine, kept_s: float) -> set[str]:
    """Digests that some version is, or was not long ago."""
    since = utc_now() - timedelta(seconds=kept_s)
    with Session(database) as session:
        needed = or_(col(Adapter.deleted_at).is_(None), col(Adapter.deleted_at) > since)
        return set(session.exec(select(Adapter.digest).where(needed)))
