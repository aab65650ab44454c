"""The store of base models as task workers have it: under its quota of the disk."""

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.entities import UNFINISHED, Deployment, Revision, TrainingJob
from loraplex.settings import ScalerSettings
from loraplex.status import Status
from loraplex.store.model_room import ModelRoom
from loraplex.store.models import ModelStore


def store_with_room(database: Engine, settings: ScalerSettings) -> ModelStore:
    """What a model takes the place of is what nobody needs."""

    def needed() -> set[str]:
        """Of deployments that aren't deleted, whatever else they are, and of trainings."""
        live = select(Deployment.id).where(Deployment.status != Status.DELETED)
        revisions = select(Revision.base_model).where(
            col(Revision.deployment_id).in_(live), ~col(Revision.retired)
        )
        unfinished = select(TrainingJob.base_model).where(col(TrainingJob.state).in_(UNFINISHED))
        with Session(database) as session:
            return {*session.exec(revisions), *session.exec(unfinished)}

    quota = int(settings.models_gib * 2**30) if settings.models_gib is not None else None
    room = ModelRoom(settings.models_dir, quota, needed)
    local = settings.allow_local_models
    return ModelStore(settings.models_dir, allow_local=local, make_room=room.make)
