"""The store of base models as task workers have it: under its quota of the disk."""

from sqlalchemy import Engine
from sqlmodel import Session

from loraplex.needed_models import needed_models
from loraplex.settings import ScalerSettings
from loraplex.store.model_bucket import model_bucket
from loraplex.store.model_room import ModelRoom
from loraplex.store.models import ModelStore


def store_with_room(database: Engine, settings: ScalerSettings) -> ModelStore:
    """What a model takes the place of is what nobody needs."""

    def needed() -> set[str]:
        with Session(database) as session:
            return needed_models(session)

    quota = int(settings.models_gib * 2**30) if settings.models_gib is not None else None
    room = ModelRoom(settings.models_dir, quota, needed)
    return ModelStore(
        settings.models_dir,
        allow_local=settings.allow_local_models,
        make_room=room.make,
        bucket=model_bucket(settings),
    )
