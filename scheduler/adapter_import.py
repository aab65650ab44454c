"""One import of an adapter: fetch it from a hub, S3 or a folder, register it.

The row tells everything: who runs it (one at a time), how far it is, whether it is still wanted.
A task worker that dies gives no more signs; then another one goes on where it was.
"""

import logging
import os
import secrets
import shutil
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, Update, update
from sqlmodel import Session, col, or_

from loraplex.compare_and_set import changed
from loraplex.entities import Adapter, AdapterImport, ImportState, utc_now
from loraplex.registry import RegistrationRefused, Registry
from loraplex.secret_box import NotReadable, SecretBox
from loraplex.settings import ScalerSettings
from loraplex.store.adapters import AdapterStore
from loraplex.store.fetch_adapter import FetchFailed, Stopped, fetch
from loraplex.store.models import ModelStore
from loraplex.store.sources import SourceRefused, check_allowed, parse

log = logging.getLogger(__name__)

_BEAT_S = 1.0


class ImportRun:
    def __init__(self, database: Engine, settings: ScalerSettings, import_id: str) -> None:
        self._database = database
        self._settings = settings
        self._id = import_id
        self._me = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._told_at = 0.0

    def begin(self, silent_s: float) -> bool:
        """False: it has ended, or another one runs it that gave a sign within so long."""
        silent = col(AdapterImport.beat_at) < utc_now() - timedelta(seconds=silent_s)
        free = or_(col(AdapterImport.state) == ImportState.QUEUED.value, silent)
        unfinished = (ImportState.QUEUED.value, ImportState.RUNNING.value)
        wanted = update(AdapterImport).where(
            col(AdapterImport.id) == self._id, col(AdapterImport.state).in_(unfinished), free
        )
        return self._write(wanted, state=ImportState.RUNNING.value, runner=self._me)

    def carry_out(self) -> None:
        scratch = self._settings.uploads_dir / self._id  # the same after a worker's death
        try:
            ended: dict[str, object] = {"adapter": self._import(scratch).ref, "progress": 1.0}
            state = ImportState.SUCCEEDED
        except Stopped:
            log.info("%s was cancelled, or taken over", self._id)
            return
        except (FetchFailed, RegistrationRefused, SourceRefused, NotReadable) as failed:
            ended, state = {"error": str(failed)}, ImportState.FAILED
        except Exception as failed:  # whatever it is, who asked for it must read it
            log.exception("%s failed", self._id)
            ended, state = {"error": f"{type(failed).__name__}: {failed}"}, ImportState.FAILED
        shutil.rmtree(scratch, ignore_errors=True)
        if not self._write(self._mine(), state=state.value, token="", doing="", **ended):
            log.info("%s was cancelled at its end", self._id)
        log.info("%s %s %s", self._id, state.value, ended)

    def _import(self, scratch: Path) -> Adapter:
        with Session(self._database, expire_on_commit=False) as session:
            row = session.get_one(AdapterImport, self._id)
        settings, source = self._settings, parse(row.source)
        check_allowed(
            *(source, row.tenant_id),
            local=settings.allow_local_models,
            s3_prefixes=settings.s3_sources,
        )
        box = SecretBox(settings.secret_key, settings.secret_key_file)
        token = box.open(row.token) if row.token else ""
        files = fetch(source, scratch, token, settings.max_upload_bytes, self._tell)
        config, weights = (file.read_bytes() for file in files)
        self._told_at = 0.0
        self._tell("registering", None)
        registry = Registry(
            self._database,
            AdapterStore(settings.adapters_dir),
            ModelStore(settings.models_dir, allow_local=settings.allow_local_models),
            settings.tenant_storage_gib,
        )
        return registry.register(row.tenant_id, row.repo, row.base_model, config, weights)

    def _tell(self, doing: str, progress: float | None) -> None:
        """Raises Stopped when it was cancelled, or taken over."""
        if time.monotonic() - self._told_at < _BEAT_S:
            return
        self._told_at = time.monotonic()
        if not self._write(self._mine(), doing=doing, progress=progress):
            raise Stopped

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
