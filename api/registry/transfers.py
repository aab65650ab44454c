"""URLs that need no key, for clients that send files apart: whoever has one may use it, for an
hour and for what it names. Only the SHA-256 of a URL's secret is stored."""

import hashlib
import hmac
import secrets
from datetime import timedelta

from fastapi import Request
from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.state import State
from loraplex.entities import Transfer, TransferKind, utc_now

LIFETIME = timedelta(hours=1)
_MOST_UPLOADS, _MOST_READS = 20, 1000  # of a tenant at once


def issue(session: Session, tenant: str, kind: TransferKind, target: str) -> tuple[Transfer, str]:
    """A transfer and its secret. Raises ApiError 409 for a tenant with too many."""
    session.execute(delete(Transfer).where(col(Transfer.expires_at) < utc_now()))
    reads = kind is TransferKind.FILE
    alike = (col(Transfer.kind) == TransferKind.FILE.value) == reads
    count = select(func.count()).where(col(Transfer.tenant_id) == tenant, alike)
    most = _MOST_READS if reads else _MOST_UPLOADS
    if session.exec(count).one() >= most:
        message = f"At most {most} at once; each ends by itself within {LIFETIME}."
        raise ApiError(429, "too_many", message, retry_after_s=60)
    secret = secrets.token_urlsafe(32)
    row = Transfer(
        tenant_id=tenant,
        kind=kind.value,
        target=target,
        sha256=_digest(secret),
        expires_at=utc_now() + LIFETIME,
    )
    session.add(row)
    session.commit()
    session.refresh(row)
    return row, secret


def url(http: Request, transfer: Transfer, secret: str, name: str) -> str:
    """As the client reaches us."""
    return f"{http.base_url}transfers/{transfer.id}/{secret}/{name}"


def redeem(session: Session, transfer: str, secret: str) -> Transfer:
    """Raises ApiError 404: also for one that has expired."""
    row = session.get(Transfer, transfer)
    same = hmac.compare_digest(row.sha256 if row else "", _digest(secret))
    if row is None or not same or row.expires_at < utc_now():
        raise ApiError(404, "not_found", "This URL is not valid, or not any more.")
    return row


def need(session: Session, tenant: str, transfer: str, kind: TransferKind) -> Transfer:
    """A tenant's own. Raises ApiError 404."""
    row = session.get(Transfer, transfer)
    if row is None or (row.tenant_id, row.kind) != (tenant, kind) or row.expires_at < utc_now():
        message = f"There is no upload {transfer[:80]!r}, or it has expired. Begin it again."
        raise ApiError(404, "not_found", message, param="uploadToken")
    return row


def end(state: State, transfer: str) -> None:
    """What it brought has found its place."""
    with Session(state.database) as session:
        session.execute(delete(Transfer).where(col(Transfer.id) == transfer))
        session.commit()
    state.staging.delete(transfer)


def of_tenant(session: Session, tenant: str) -> list[str]:
    """Ids of its uploads."""
    uploads = select(Transfer.id).where(
        Transfer.tenant_id == tenant, Transfer.kind != TransferKind.FILE
    )
    return list(session.exec(uploads))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
