"""Files of a tenant: their names, and whether there is room for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlmodel import Session, col, or_, select

from api.errors import ApiError, bad_request
from api.state import State
from loraplex import storage_quota
from loraplex.batch_status import UNDER_WAY
from loraplex.entities import UNFINISHED, Batch, StoredFile, TrainingJob


def check_filename(name: str, param: str) -> None:
    """Raises ApiError 400."""
    if len(name) > 255 or not name.isprintable():
        raise bad_request("The file's name: at most 255 printable characters.", param)


def check_storage(session: Session, state: State, tenant: str, more: int) -> None:
    """Whether `more` bytes have room. Raises ApiError 409."""
    try:
        storage_quota.check(session, tenant, more, state.settings.storage_limit)
    except storage_quota.StorageFull as full:
        raise ApiError(409, "storage_full", str(full)) from full


def check_unneeded(session: Session, file_id: str) -> None:
    """Nobody reads it, or is to. Raises ApiError 409."""
    batch = session.exec(
        select(Batch.id).where(Batch.input_file_id == file_id, col(Batch.status).in_(UNDER_WAY))
    ).first()
    training = session.exec(
        select(TrainingJob.id).where(
            or_(TrainingJob.training_file == file_id, TrainingJob.validation_file == file_id),
            col(TrainingJob.state).in_(UNFINISHED),
        )
    ).first()
    if reader := batch or training:
        message = f"{reader} reads it. Wait for its end, or cancel it first."
        raise ApiError(409, "conflict", message)


@contextmanager
def storing(state: State, file: StoredFile) -> Iterator[Session]:
    """A transaction for a file whose content is here: if it has no room after all, or fails, the
    content is removed. Raises ApiError 409."""
    try:
        with Session(state.database, expire_on_commit=False) as session:
            storage_quota.lock(session, file.tenant_id)
            check_storage(session, state, file.tenant_id, file.bytes)
            yield session
    except BaseException:
        state.files.delete(file.id)
        raise
