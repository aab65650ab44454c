"""Where a replica's base model comes from: the home folder, this machine's copies of what is in a
bucket, the hub."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loraplex.store.arriving import Arriving
from loraplex.store.in_use import hold
from loraplex.store.model_bucket import model_bucket
from loraplex.store.model_copies import ModelCopies, NotStored
from loraplex.store.models import ModelStore, folder_name, is_path
from loraplex.worker_settings import WorkerSettings

log = logging.getLogger(__name__)


@contextmanager
def base_model(settings: WorkerSettings, name: str) -> Iterator[tuple[Path, Arriving | None]]:
    """Its folder; not None: its weights are still on their way there, and no more are fetched when
    the caller fails. Raises ModelUnavailable, OSError."""
    folder, arriving = _begin(settings, name)
    try:
        yield folder, arriving
    except BaseException:
        if arriving is not None:
            arriving.cancel()
        raise


def _begin(settings: WorkerSettings, name: str) -> tuple[Path, Arriving | None]:
    """With a disk for copies these come first: the home folder is on a network then."""
    home, bucket = _home(settings), model_bucket(settings)
    if not is_path(name):
        hold(home.root / folder_name(name))
    if bucket is None or is_path(name):
        return home.fetch(name), None
    here, disk = home.find(name), settings.model_disk
    if here is not None and disk is None:
        return here, None
    quota = None if settings.models_gib is None else int(settings.models_gib * 2**30)
    copies = ModelCopies(disk or settings.home / "model-copies", bucket, quota)
    try:
        return copies.begin(name)
    except OSError as failed:  # nor is it fetched from the hub, by each replica
        if here is not None:
            log.warning("the home folder's is used: %s", failed)
            return here, None
        if isinstance(failed, NotStored):
            raise OSError(f"{failed} A deployment that names it stores it there.") from failed
        raise


def in_home(settings: WorkerSettings, name: str) -> Path | None:
    """Where it is whole, beside what doesn't come."""
    return None if is_path(name) else _home(settings).find(name)


def _home(settings: WorkerSettings) -> ModelStore:
    return ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
