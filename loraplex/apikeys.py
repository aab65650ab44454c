"""API keys: made here, stored as a hash only."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlmodel import Session, select

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
    key: str = "",
) -> tuple[ApiKey, str]:
    """A new key and its row; nobody can read the key again. Commits."""
    hint = ""  # of a key that was chosen by hand nothing is shown
    if not key:
        key = new_key()
        hint = key[:_HINT]
    row = ApiKey(
        tenant_id=tenant,
        name=name,
        sha256=fingerprint(key),
        hint=hint,
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(row)
    session.commit()
    return row, key


def rotate(session: Session, old: ApiKey, grace_s: float) -> tuple[ApiKey, str]:
    """Another key in the place of `old`, which ends after `grace_s`, or earlier if it was to. One
    that was to end after some time lives for as long again. Not for one that was replaced already.
    Commits."""
    now = utc_now()
    lifetime = old.expires_at - old.created_at if old.expires_at else None
    end = now + timedelta(seconds=grace_s)
    old.expires_at = min(old.expires_at, end) if old.expires_at else end
    expires_at = now + lifetime if lifetime else None
    row, key = issue(session, old.tenant_id, old.name, map(Scope, old.scopes), expires_at)
    old.replaced_by = row.id
    session.commit()
    return row, key


def store(session: Session, tenant: str, name: str, key: str) -> None:
    """Make `key` valid for the tenant that runs the platform, who is created if need be. Safe to
    run again. Commits."""
    if session.get(Tenant, tenant) is None:
        session.add(Tenant(id=tenant, operator=True))
        session.flush()
    if session.exec(select(ApiKey).where(ApiKey.sha256 == fingerprint(key))).first() is None:
        issue(session, tenant, name, [Scope.ADMIN], key=key)
    session.commit()
