"""/api/v1/keys: who may do what. Keys are shown once, when they are made."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.keyring import Caller
from api.security import Admin
from api.state import StateDep
from loraplex import apikeys
from loraplex.entities import ApiKey, Tenant, utc_now
from loraplex.scopes import Scope

router = APIRouter(tags=["keys"])

_LONGEST_S = 10 * 366 * 86400


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


Printable = Annotated[str, AfterValidator(_printable)]


class KeyCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Printable = Field(min_length=1, max_length=128)
    scopes: list[Scope] = Field([Scope.INFERENCE], min_length=1, max_length=len(Scope))
    expires_in_s: float | None = Field(None, ge=1, le=_LONGEST_S, description="null: never.")
    tenant: Printable | None = Field(None, max_length=63, description="Another's, for operators.")


class Rotate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    grace_s: float = Field(0, ge=0, le=30 * 86400, description="The old one works for so long.")


class KeyOut(BaseModel):
    id: str
    tenant: str
    name: str
    hint: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None
    revoked_at: datetime | None


class NewKeyOut(KeyOut):
    key: str


@router.post("/keys", status_code=201)
def create(body: KeyCreate, admin: Admin, state: StateDep) -> NewKeyOut:
    """Make a key. It is shown here and never again."""
    expires = utc_now() + timedelta(seconds=body.expires_in_s) if body.expires_in_s else None
    with Session(state.database, expire_on_commit=False) as session:
        tenant = _tenant(session, admin, body.tenant)
        row, key = apikeys.issue(session, tenant, body.name, body.scopes, expires)
        session.commit()
        return NewKeyOut(**_shown(row), key=key)


@router.get("/keys")
def list_keys(admin: Admin, state: StateDep, tenant: str | None = None) -> dict[str, list[KeyOut]]:
    """The tenant's keys, revoked ones, too."""
    with Session(state.database, expire_on_commit=False) as session:
        wanted = select(ApiKey).where(ApiKey.tenant_id == _tenant(session, admin, tenant))
        rows = session.exec(wanted.order_by(col(ApiKey.created_at))).all()
        return {"data": [KeyOut(**_shown(row)) for row in rows]}


@router.delete("/keys/{key_id}")
def revoke(key_id: str, admin: Admin, state: StateDep) -> KeyOut:
    """From now on it is refused (at other API processes within LORAPLEX_KEY_CACHE_S)."""
    if key_id == admin.key:
        message = "This is the key that you use just now. Use another one for it, or rotate it."
        raise ApiError(409, "key_in_use", message)
    with Session(state.database, expire_on_commit=False) as session:
        row = _need(session, admin, key_id)
        row.revoked_at = row.revoked_at or utc_now()
        session.commit()
        state.keyring.forget()
        return KeyOut(**_shown(row))


@router.post("/keys/{key_id}/rotate", status_code=201)
def rotate(key_id: str, admin: Admin, state: StateDep, body: Rotate | None = None) -> NewKeyOut:
    """Another key with the same name and scopes; the old one ends after `grace_s`."""
    with Session(state.database, expire_on_commit=False) as session:
        old = _need(session, admin, key_id)
        if old.revoked_at is not None:
            raise ApiError(409, "key_revoked", f"The key {key_id!r} was revoked. Make a new one.")
        if old.expires_at is not None and old.expires_at <= utc_now():
            raise ApiError(409, "key_expired", f"The key {key_id!r} has expired. Make a new one.")
        if not old.hint:
            message = (
                "This key was set by hand (LORAPLEX_API_KEY, ~/.loraplex/api-key). Make another, "
                "put it there, then revoke this one."
            )
            raise ApiError(409, "key_set_by_hand", message)
        rotated = apikeys.rotate(session, old, body.grace_s if body else 0)
        if rotated is None:
            session.rollback()
            message = f"The key {key_id!r} was rotated already, to {old.replaced_by!r}."
            raise ApiError(409, "key_replaced", message)
        row, key = rotated
        session.commit()
        state.keyring.forget()
        return NewKeyOut(**_shown(row), key=key)


def _tenant(session: Session, admin: Caller, named: str | None) -> str:
    """Whose keys are meant. Raises ApiError 404, also for one that is not the admin's business."""
    if named is None or named == admin.tenant:
        return admin.tenant
    if not admin.operator or session.get(Tenant, named) is None:
        raise ApiError(404, "not_found", f"There is no tenant {named!r}.", param="tenant")
    return named


def _need(session: Session, admin: Caller, key_id: str) -> ApiKey:
    row = session.get(ApiKey, key_id)
    if row is None or not (admin.operator or row.tenant_id == admin.tenant):
        raise ApiError(404, "not_found", f"There is no key {key_id!r}.")
    return row


def _shown(row: ApiKey) -> dict[str, object]:
    return row.model_dump() | {"tenant": row.tenant_id}
