"""One import of an adapter: fetch it from a hub, S3 or a folder, register it.

The row tells whose it is, how far, and whether it is still wanted. Who runs it gives a sign every
few seconds, and holds a lock on its folder: one that was taken for dead and lives finds that it
isn't its any more, and its heir waits until it has let go. What was fetched is gone on with.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, Update, func, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, or_, select

from loraplex import storage_quota
from loraplex.compare_and_set import changed
from loraplex.entities import UNFINISHED, Adapter, AdapterImport, ImportState, Tenant, utc_now
from loraplex.locked import is_locked
from loraplex.registry import RegistrationRefused, Registry
from loraplex.secret_box import NotReadable, SecretBox
from loraplex.settings import ScalerSettings
from loraplex.store.adapters import AdapterStore
from loraplex.store.fetch_adapter import FetchFailed, Stopped, fetch
from loraplex.store.models import ModelStore
from loraplex.store.sources import Allowed, SourceRefused, check_allowed, parse
from scheduler.signs import Signs

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
MOST_OF_A_TENANT = 2  # at once: others' imports wait for the same threads


class ImportRun:
    def __init__(self, database: Engine, settings: ScalerSettings, import_id: str) -> None:
        self._database = database
        self._settings = settings
        self._id = import_id
        self._scratch = settings.uploads_dir / import_id  # the same after a worker's death
        self._me = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._news: tuple[str, float | None] = ("", None)
        self._signs = Signs(import_id, self._give_sign)

    def begin(self, silent_s: float) -> bool:
        """False: it has ended, another one runs it that gave a sign within so long, or its tenant
        has enough that run."""
        silent = col(AdapterImport.beat_at) < utc_now() - timedelta(seconds=silent_s)
        free = or_(col(AdapterImport.state) == ImportState.QUEUED.value, silent)
        wanted = update(AdapterImport).where(
            col(AdapterImport.id) == self._id, col(AdapterImport.state).in_(UNFINISHED), free
        )
        attempts = col(AdapterImport.attempts) + 1
        mine = {"state": ImportState.RUNNING.value, "runner": self._me, "attempts": attempts}
        with Session(self._database) as session:
            row = session.get(AdapterImport, self._id)
            if row is None:
                return False
            storage_quota.lock(session, row.tenant_id)  # counted and taken by one at a time
            if self._running(session, row) >= MOST_OF_A_TENANT:
                return False
            done = changed(session, wanted.values(beat_at=utc_now(), **mine))
            session.commit()
        return bool(done)

    def carry_out(self) -> None:
        """To its end, if it stays its own. Raises what concerns the database."""
        with self._locked() as scratch:
            if scratch is None:
                log.info("%s is still held by another run", self._id)
                return
            with self._signs.given():
                self._carry_out(scratch)

    def _carry_out(self, scratch: Path) -> None:
        try:
            ended: dict[str, object] = {"adapter": self._import(scratch).ref, "progress": 1.0}
            state = ImportState.SUCCEEDED
        except Stopped:
            log.info("%s was cancelled, or taken over", self._id)
            if self._read().state == ImportState.CANCELLED:
                shutil.rmtree(scratch, ignore_errors=True)
            return
        except (FetchFailed, RegistrationRefused, SourceRefused, NotReadable) as failed:
            ended, state = {"error": str(failed)}, ImportState.FAILED
        except SQLAlchemyError:
            raise
        except Exception as failed:  # whatever it is, who asked for it must read it
            log.exception("%s failed", self._id)
            ended, state = {"error": f"{type(failed).__name__}: {failed}"}, ImportState.FAILED
        if self._write(self._mine(), state=state.value, token="", doing="", **ended):
            shutil.rmtree(scratch, ignore_errors=True)
            log.info("%s %s %s", self._id, state.value, ended)

    def _import(self, scratch: Path) -> Adapter:
        row = self._read()
        if row.attempts > MOST_ATTEMPTS:
            raise FetchFailed(f"{MOST_ATTEMPTS} task workers died, or hung, while they ran it.")
        settings, source = self._settings, parse(row.source)
        with Session(self._database) as session:
            operator = session.get_one(Tenant, row.tenant_id).operator
        local = settings.allow_local_models and operator
        allowed = Allowed(row.tenant_id, local, settings.home, settings.s3_sources)
        check_allowed(source, allowed)
        box = SecretBox(settings.secret_key, settings.secret_key_file)
        token = box.open(row.token) if row.token else ""
        files = fetch(source, scratch, token, settings.max_upload_bytes, self._tell)
        config, weights = (file.read_bytes() for file in files)
        self._tell("registering", None)
        if not self._write(self._mine()):
            raise Stopped
        models = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
        store = AdapterStore(settings.adapters_dir)
        registry = Registry(self._database, store, models, settings.storage_limit)
        return registry.register(row.tenant_id, row.repo, row.base_model, config, weights)

    def _tell(self, doing: str, progress: float | None) -> None:
        """Raises Stopped when it was cancelled, or taken over."""
        self._news = doing, progress
        if self._signs.lost.is_set():
            raise Stopped

    def _give_sign(self) -> bool:
        doing, progress = self._news
        with suppress(FileNotFoundError):  # it has just ended
            os.utime(self._scratch)  # it isn't forgotten
        return self._write(self._mine(), doing=doing, progress=progress)

    @contextmanager
    def _locked(self) -> Iterator[Path | None]:
        """Its folder. None: another run is still in it."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._scratch, os.O_RDONLY)
        try:
            yield self._scratch if is_locked(folder) else None
        finally:
            os.close(folder)

    def _running(self, session: Session, row: AdapterImport) -> int:
        """Others of its tenant."""
        others = select(func.count()).where(
            col(AdapterImport.tenant_id) == row.tenant_id,
            col(AdapterImport.state) == ImportState.RUNNING.value,
            col(AdapterImport.id) != row.id,
        )
        return session.exec(others).one()

    def _read(self) -> AdapterImport:
        with Session(self._database, expire_on_commit=False) as session:
            return session.get_one(AdapterImport, self._id)

    def _mine(self) -> Update:
        return update(AdapterImport).where(
            col(AdapterImport.id) == self._id,
            col(AdapterImport.runner) == self._me,
            col(AdapterImport.state) == ImportState.RUNNING.value,
        )

    def _write(self, wanted: Update, **values: object) -> bool:
        with Session(self._database) as session:
            done = changed(session, wanted.values(beat_at=utc_now(), **values))
            session.commit()
        return bool(done)
