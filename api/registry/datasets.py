"""Datasets: training data under a tenant's names for it; each is a stored file that was checked."""

import re
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.registry.stored_files import check_storage, check_unneeded, storing
from api.state import State
from loraplex.datasets import DatasetInvalid, inspect
from loraplex.entities import Dataset, StoredFile
from loraplex.store.files import blocks_of

_NAME = re.compile(r"[A-Za-z0-9_]([\w. -]{0,126}\w)?", re.ASCII)


def add(state: State, tenant: str, name: str, filename: str, path: Path) -> Dataset:
    """Check a file and keep it under a name. Raises ApiError."""
    if not _NAME.fullmatch(name):
        wanted = "1 to 128 letters, digits, spaces, '.', '_' and '-', not at the ends."
        raise bad_request(f"{name[:80]!r} is no name of a dataset: {wanted}", "name")
    with Session(state.database) as session:
        if find(session, tenant, name) is not None:
            raise _taken(name)
        check_storage(session, state, tenant, path.stat().st_size)
    try:
        facts = inspect(path, filename)
    except DatasetInvalid as wrong:
        raise bad_request(f"Dataset refused: {wrong}", "file", "dataset_refused") from wrong
    file = StoredFile(tenant_id=tenant, filename=filename, purpose="fine-tune", bytes=0)
    row = Dataset(tenant_id=tenant, name=name, file_id=file.id, columns=[], rows=facts.rows)
    row.columns = list(facts.columns)
    with path.open("rb") as content:
        file.bytes = state.files.put(file.id, blocks_of(content))
    try:
        with storing(state, file) as session:
            session.add(file)
            session.flush()
            session.add(row)
            session.commit()
    except IntegrityError as taken:
        raise _taken(name) from taken
    return row


def find(session: Session, tenant: str, name: str) -> Dataset | None:
    wanted = select(Dataset).where(Dataset.tenant_id == tenant, Dataset.name == name)
    return session.exec(wanted).first()


def need(session: Session, tenant: str, name_or_id: str) -> Dataset:
    """Raises ApiError 404."""
    found = find(session, tenant, name_or_id)
    if found is None:
        found = session.get(Dataset, name_or_id)
    if found is None or found.tenant_id != tenant:
        message = f"There is no dataset {name_or_id[:80]!r}."
        raise ApiError(404, "not_found", message, param="dataset")
    return found


def of_tenant(session: Session, tenant: str) -> list[Dataset]:
    wanted = select(Dataset).where(Dataset.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(Dataset.name))))


def delete(state: State, session: Session, row: Dataset) -> None:
    """With its file. Raises ApiError 409 while a training needs it."""
    check_unneeded(session, row.file_id)
    file = session.get(StoredFile, row.file_id)
    session.delete(row)
    session.flush()
    if file is not None:
        session.delete(file)
    session.commit()
    if file is not None:
        state.files.delete(row.file_id)


def _taken(name: str) -> ApiError:
    return ApiError(409, "dataset_exists", f"Dataset {name!r} exists already.", param="name")
