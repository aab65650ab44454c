"""How much a tenant may store: its adapters and files together."""

from sqlalchemy import func
from sqlmodel import Session, col, select

from api.errors import ApiError
from loraplex.entities import Adapter, StoredFile
from loraplex.settings import ApiSettings


def check(session: Session, settings: ApiSettings, tenant: str, more: int) -> None:
    """Raises ApiError 409 when `more` bytes are too many."""
    if settings.tenant_storage_gib is None:
        return
    limit = settings.tenant_storage_gib * 2**30
    if used(session, tenant) + more > limit:
        message = (
            f"Adapters and files of tenant {tenant!r} may take {settings.tenant_storage_gib:g} GiB "
            "(LORAPLEX_TENANT_STORAGE_GIB). Delete some."
        )
        raise ApiError(409, "storage_full", message)


def used(session: Session, tenant: str) -> int:
    """Bytes."""
    adapters = select(func.sum(col(Adapter.size_bytes))).where(
        Adapter.tenant_id == tenant, col(Adapter.deleted_at).is_(None)
    )
    files = select(func.sum(col(StoredFile.bytes))).where(StoredFile.tenant_id == tenant)
    return int(session.exec(adapters).one() or 0) + int(session.exec(files).one() or 0)
