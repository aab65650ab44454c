"""One import of an adapter: fetch it from a hub, S3 or a folder, register it; or of a base model.

It is run by one task at a time (`claim.py`). What a task fetched that died is gone on with.
"""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col

from loraplex.entities import AdapterImport, Tenant, WorkState
from loraplex.registry import Origin, RegistrationRefused, Registry
from loraplex.secret_box import NotReadable, SecretBox
from loraplex.settings import ScalerSettings
from loraplex.store.adapters import store_of
from loraplex.store.fetch_adapter import fetch
from loraplex.store.fetch_model import fetch_model
from loraplex.store.models import ModelBusy, ModelUnavailable, Stopped
from loraplex.store.resumed import FetchFailed
from loraplex.store.sources import Allowed, SourceRefused, check_allowed, parse
from scheduler.base_models import store_with_room
from scheduler.claim import Claim

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
_REFUSALS = (
    FetchFailed,
    RegistrationRefused,
    SourceRefused,
    NotReadable,
    ModelUnavailable,
    ModelBusy,
)
MOST_OF_A_TENANT = 2  # at once: others' imports wait for the same threads


class ImportRun:
    def __init__(self, database: Engine, settings: ScalerSettings, import_id: str) -> None:
        self._database = database
        self._settings = settings
        self._id = import_id
        self._scratch = settings.uploads_dir / import_id
        self._news: tuple[str, float | None] = ("", None)
        self._claim = Claim(database, AdapterImport, import_id, self._scratch, self._sign)

    def begin(self, silent_s: float) -> bool:
        """As `Claim.take`: of a tenant's, some run at once."""
        with Session(self._database) as session:
            row = session.get(AdapterImport, self._id)
        if row is None:
            return False
        tenants = col(AdapterImport.tenant_id) == row.tenant_id
        return self._claim.take(silent_s, MOST_OF_A_TENANT, row.tenant_id, tenants)

    def carry_out(self) -> None:
        """To its end, if it stays its own. Raises what concerns the database."""
        with self._claim.held() as held:
            if held:
                self._carry_out(self._scratch)
            else:
                log.info("%s is still held by another run", self._id)

    def _carry_out(self, scratch: Path) -> None:
        try:
            ended: dict[str, object] = {"adapter": self._import(scratch), "progress": 1.0}
            state = WorkState.SUCCEEDED
        except Stopped:
            log.info("%s was cancelled, or taken over", self._id)
            if self._claim.row().state == WorkState.CANCELLED:
                shutil.rmtree(scratch, ignore_errors=True)
            return
        except _REFUSALS as failed:
            ended, state = {"error": str(failed)}, WorkState.FAILED
        except SQLAlchemyError:
            raise
        except Exception as failed:  # whatever it is, who asked for it must read it
            log.exception("%s failed", self._id)
            ended, state = {"error": f"{type(failed).__name__}: {failed}"}, WorkState.FAILED
        if self._claim.write(state=state.value, token="", doing="", **ended):
            shutil.rmtree(scratch, ignore_errors=True)
            log.info("%s %s %s", self._id, state.value, ended)

    def _import(self, scratch: Path) -> str:
        """What came: an adapter's ref, or a base model's name."""
        row = self._claim.row()
        if row.attempts > MOST_ATTEMPTS:
            raise FetchFailed(f"{MOST_ATTEMPTS} task workers died, or hung, while they ran it.")
        settings, source = self._settings, parse(row.source)
        with Session(self._database) as session:
            operator = session.get_one(Tenant, row.tenant_id).operator
        local = settings.allow_local_models and operator
        allowed = Allowed(row.tenant_id, local, settings.home, settings.s3_sources)
        check_allowed(source, allowed)
        models = store_with_room(self._database, settings)
        if row.model:
            folder = fetch_model(row.model, source, scratch, models.make_room, self._tell)
            self._tell("checking", None)
            models.adopt(row.model, folder)
            return row.model
        box = SecretBox(settings.secret_key, settings.secret_key_file)
        token = box.open(row.token) if row.token else ""
        fetched = fetch(source, scratch, token, settings.max_upload_bytes, self._tell)
        self._tell("registering", None)
        if not self._claim.write():
            raise Stopped
        store = store_of(settings)
        registry = Registry(self._database, store, models, settings.storage_limit)
        origin = Origin(lineage={"import": row.id, "source": row.source})
        config, weights = (file.read_bytes() for file in fetched)
        return registry.register(
            row.tenant_id, row.repo, row.base_model, config, weights, origin
        ).ref

    def _tell(self, doing: str, progress: float | None) -> None:
        """Raises Stopped when it was cancelled, or taken over."""
        self._news = doing, progress
        if self._claim.lost:
            raise Stopped

    def _sign(self) -> dict[str, object]:
        with suppress(FileNotFoundError):  # it has just ended
            os.utime(self._scratch)  # it isn't forgotten
        doing, progress = self._news
        return {"doing": doing, "progress": progress}
