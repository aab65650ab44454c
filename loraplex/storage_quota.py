"""How much a tenant may store: its adapters and files together."""

from datetime import timedelta

from sqlalchemy import func, or_, update
from sqlmodel import Session, col, select

from loraplex.entities import Adapter, StoredFile, Tenant, utc_now
from loraplex.limits import StorageLimit


class StorageFull(Exception):
    """The text says how much is allowed."""


def check(session: Session, tenant: str, more: int, limit: StorageLimit) -> None:
    """Raises StorageFull when `more` bytes are too many."""
    if limit.gib is not None and used(session, tenant, limit.kept_s) + more > limit.gib * 2**30:
        raise StorageFull(
            f"Adapters and files of tenant {tenant!r} may take {limit.gib:g} GiB "
            "(LORAPLEX_TENANT_STORAGE_GIB). Delete some; an adapter counts until its files are "
            "removed, LORAPLEX_STORAGE_KEPT_S later."
        )


def lock(session: Session, tenant: str) -> None:
    """Until this transaction ends no other stores for this tenant: what is checked holds."""
    mine = update(Tenant).where(col(Tenant.id) == tenant)
    session.execute(mine.values(operator=col(Tenant.operator)))


def used(session: Session, tenant: str, kept_s: float) -> int:
    """Bytes."""
    since = utc_now() - timedelta(seconds=kept_s)
    there = or_(col(Adapter.deleted_at).is_(None), col(Adapter.deleted_at) > since)
    adapters = select(func.sum(col(Adapter.size_bytes))).where(Adapter.tenant_id == tenant, there)
    files = select(func.sum(col(StoredFile.bytes))).where(StoredFile.tenant_id == tenant)
    return int(session.exec(adapters).one() or 0) + int(session.exec(files).one() or 0)
