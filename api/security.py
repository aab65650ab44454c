"""API key → tenant. Every router depends on `TenantDep`: there is no route without a key but the
ones that `app.py` lists as open.

The key is looked at by `app.Gate`, before a byte of the body is read; routes take its finding."""

from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.state import State
from loraplex.apikeys import fingerprint
from loraplex.entities import ApiKey


def authenticate(state: State, authorization: str) -> str:
    """The tenant of a request's key. Raises ApiError 401."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(
            401, "invalid_api_key", "No API key given: send 'Authorization: Bearer <key>'."
        )
    with Session(state.database) as session:
        tenant = session.exec(
            select(ApiKey.tenant_id).where(
                ApiKey.sha256 == fingerprint(key.strip()), col(ApiKey.revoked_at).is_(None)
            )
        ).first()
    if tenant is None:
        raise ApiError(401, "invalid_api_key", "The API key is wrong or was revoked.")
    return tenant


def tenant_of(request: Request) -> str:
    tenant: str | ApiError = request.state.tenant
    if isinstance(tenant, ApiError):
        raise tenant
    return tenant


TenantDep = Annotated[str, Depends(tenant_of)]
