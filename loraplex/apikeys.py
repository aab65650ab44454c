"""API keys: made here, stored as a hash only."""

import hashlib
import secrets

from sqlmodel import Session, select

from loraplex.entities import ApiKey, Tenant

FIRST_TENANT = "dev"


def fingerprint(key: str) -> str:
    """What is stored of a key. Keys carry 256 random bits, so a plain hash can't be reversed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """The prefix is the one that Predibase's SDK expects."""
    return f"pb_{secrets.token_urlsafe(32)}"


def store(session: Session, tenant: str, name: str, key: str) -> None:
    """Make `key` valid for a tenant, who is created if need be. Safe to run again. Commits."""
    if session.get(Tenant, tenant) is None:
        session.add(Tenant(id=tenant))
        session.flush()
    sha256 = fingerprint(key)
    if session.exec(select(ApiKey).where(ApiKey.sha256 == sha256)).first() is None:
        session.add(ApiKey(tenant_id=tenant, name=name, sha256=sha256))
    session.commit()
