"""The adapters that come of a fine-tuning job: its end, and checkpoints of epochs before it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, select

from loraplex.entities import Adapter, Dataset, TrainingJob, utc_now
from loraplex.registry import Origin, Registry, checkpoints_of, find_adapter
from loraplex.settings import ScalerSettings
from loraplex.store.adapters import store_of
from loraplex.store.models import ModelStore
from loraplex.store.peft_checks import CONFIG, WEIGHTS


class TrainedVersions:
    def __init__(self, database: Engine, settings: ScalerSettings, models: ModelStore) -> None:
        self._database = database
        self._store = store_of(settings)
        self._registry = Registry(database, self._store, models, settings.storage_limit)

    def copy(self, tenant: str, ref: str, into: Path) -> bool:
        """A version or checkpoint to go on from; it may be deleted meanwhile. False: it is gone.

        Its modules by name: a pattern of a stranger's may take for ever to match.
        """
        with Session(self._database) as session:
            found = find_adapter(session, tenant, ref)
        if found is None or not self._store.use(found.digest):
            return False
        shutil.copytree(self._store.locate(found.digest), into, dirs_exist_ok=True)
        config = json.loads((into / CONFIG).read_text())
        config |= {"target_modules": found.targets, "exclude_modules": None}
        (into / CONFIG).write_text(json.dumps(config))
        return True

    def register(self, job: TrainingJob, folder: Path) -> Adapter:
        """The end of a job. Raises RegistrationRefused."""
        figures = {"steps": job.step, "tokens": job.tokens, "loss": job.loss}
        if job.validation_loss is not None:
            figures["validation_loss"] = job.validation_loss
        return self._register(job, folder, 0, figures)

    def keep(self, job: TrainingJob, folder: Path, step: int, figures: Mapping[str, Any]) -> str:
        """As `repo/version@step`; beyond as many as are wanted, the oldest go. Raises
        RegistrationRefused."""
        kept = self._register(job, folder, step, {"steps": step, **figures})
        with Session(self._database) as session:
            for surplus in session.exec(checkpoints_of(job)).all()[job.settings["checkpoints"] :]:
                surplus.deleted_at = utc_now()
                session.add(surplus)
            session.commit()
        return kept.ref

    def _register(
        self, job: TrainingJob, folder: Path, checkpoint: int, figures: Mapping[str, Any]
    ) -> Adapter:
        with Session(self._database) as session:
            named = select(Dataset.name).where(Dataset.file_id == job.training_file)
            dataset = session.exec(named).first() or job.training_file
        lineage = {"job": job.id, "dataset": dataset, **figures}
        if job.parent:
            lineage["parent"] = job.parent
        if job.notes:
            lineage["notes"] = job.notes
        return self._registry.register(
            *(job.tenant_id, job.repo, job.base_model),
            (folder / CONFIG).read_bytes(),
            (folder / WEIGHTS).read_bytes(),
            Origin(job.version, checkpoint, lineage),
        )
