"""How much a tenant may store: its adapters and files together."""

from sqlalchemy import func
from sqlmodel import Session, col, select

from loraplex.entities import Adapter, StoredFile


class StorageFull(Exception):
    """The text says how much is allowed."""


def check(session: Session, tenant: str, more: int, limit_gib: float | None) -> None:
    """Raises StorageFull when `more` bytes are too many."""
    if limit_gib is not None and used(session, tenant) + more > limit_gib * 2**30:
        raise StorageFull(
            f"Adapters and files of tenant {tenant!r} may take {limit_gib:g} GiB "
            "(LORAPLEX_TENANT_STORAGE_GIB). Delete some."
        )


def used(session: Session, tenant: str) -> int:
    """Bytes."""
    adapters = select(func.sum(col(Adapter.size_bytes))).where(
        Adapter.tenant_id == tenant, col(Adapter.deleted_at).is_(None)
    )
    files = select(func.sum(col(StoredFile.bytes))).where(StoredFile.tenant_id == tenant)
    return int(session.exec(adapters).one() or 0) + int(session.exec(files).one() or 0)
