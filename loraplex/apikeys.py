"""API keys: made here, stored as a hash only."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlmodel import Session, col, select

from loraplex.compare_and_set import changed
from loraplex.entities import ApiKey, Tenant, utc_now
from loraplex.scopes import Scope

FIRST_TENANT = "dev"
_HINT = 8  # characters, the prefix among them


def fingerprint(key: str) -> str:
    """What is stored of a key. Keys carry 256 random bits, so a plain hash can't be reversed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """The prefix is the one that Predibase's SDK expects."""
    return f"pb_{secrets.token_urlsafe(32)}"


def issue(
    session: Session,
    tenant: str,
    name: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its row, not committed; nobody can read the key again."""
    key = new_key()
    row = _row(tenant, name, scopes, key, hint=key[:_HINT], expires_at=expires_at)
    session.add(row)
    return row, key


def rotate(session: Session, old: ApiKey, grace_s: float) -> tuple[ApiKey, str] | None:
    """Another key in the place of `old`, which ends after `grace_s`, or earlier if it was to; not
    committed. One that was to end after some time lives for as long again. None: it was replaced
    already."""
    now = utc_now()
    lifetime = old.expires_at - old.created_at if old.expires_at else None
    end = now + timedelta(seconds=grace_s)
    expires_at = now + lifetime if lifetime else None
    row, key = issue(session, old.tenant_id, old.name, map(Scope, old.scopes), expires_at)
    once = update(ApiKey).where(col(ApiKey.id) == old.id, col(ApiKey.replaced_by).is_(None))
    values = {"replaced_by": row.id, "expires_at": min(old.expires_at or end, end)}
    return (row, key) if changed(session, once.values(**values)) else None


def store(session: Session, tenant: str, name: str, key: str) -> None:
    """Make `key` valid for the tenant that runs the platform, who is created if need be. Safe to
    run again. Commits."""
    if session.get(Tenant, tenant) is None:
        session.add(Tenant(id=tenant, operator=True))
        session.flush()
    if session.exec(select(ApiKey).where(ApiKey.sha256 == fingerprint(key))).first() is None:
        session.add(_row(tenant, name, [Scope.ADMIN], key))
    session.commit()


def _row(
    tenant: str,
    name: str,
    scopes: Iterable[Scope],
    key: str,
    hint: str = "",
    expires_at: datetime | None = None,
) -> ApiKey:
    """`hint`: of a key that was chosen by hand nothing is kept."""
    return ApiKey(
        tenant_id=tenant,
        name=name,
        sha256=fingerprint(key),
        hint=hint,
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
