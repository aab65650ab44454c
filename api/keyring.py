"""API keys as this process knows them: looked up in the database, remembered for a moment."""

import threading
from dataclasses import dataclass
from datetime import datetime

from cachetools import TTLCache
from sqlalchemy import Engine, bindparam, or_, update
from sqlmodel import Session, col, select

from api.errors import ApiError
from loraplex.apikeys import fingerprint
from loraplex.budget_state import BudgetState
from loraplex.entities import ApiKey, Plan, Tenant, utc_now
from loraplex.limits import Limits
from loraplex.scopes import Scope

_MOST = 10_000  # keys that are remembered


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a request carries."""

    tenant: str
    key: str  # its id
    scopes: frozenset[Scope]
    operator: bool  # of the tenant that runs the platform
    expires_at: datetime | None
    limits: Limits  # of its plan
    over_budget: bool


class Keyring:
    """Wrong keys are not remembered: there are too many of them. Safe for threads."""

    def __init__(self, database: Engine, remembered_s: float) -> None:
        self._database = database
        self._known: TTLCache[str, Caller] = TTLCache(_MOST, remembered_s)
        self._used: dict[str, datetime] = {}  # by id, not written yet
        self._forgotten = 0  # times
        self._lock = threading.Lock()

    def remembered(self, authorization: str) -> Caller | None:
        """Without waiting for anything."""
        sha256 = fingerprint(_key(authorization))
        with self._lock:
            caller = self._known.get(sha256)
        return self._checked(caller) if caller else None

    def find(self, authorization: str) -> Caller:
        """Raises ApiError 401."""
        sha256 = fingerprint(_key(authorization))
        with self._lock:
            seen = self._forgotten
        wanted = (
            select(ApiKey, Tenant, Plan)
            .join(Tenant, col(ApiKey.tenant_id) == col(Tenant.id))
            .outerjoin(Plan, col(Tenant.plan_id) == col(Plan.id))
            .where(ApiKey.sha256 == sha256, col(ApiKey.revoked_at).is_(None))
        )
        with Session(self._database) as session:
            row = session.exec(wanted).first()
            if row is None:
                raise ApiError(401, "invalid_api_key", "The API key is wrong or was revoked.")
            caller = _caller(*row)
        with self._lock:
            if seen == self._forgotten:  # else it may have been changed since it was read
                self._known[sha256] = caller
        return self._checked(caller)

    def caller(self, key_id: str, tenant_id: str) -> Caller:
        """In whose name work goes on that a key has begun, though the key may have ended by now."""
        wanted = select(Tenant, Plan).outerjoin(Plan, col(Tenant.plan_id) == col(Plan.id))
        with Session(self._database) as session:
            tenant, plan = session.exec(wanted.where(Tenant.id == tenant_id)).one()
            return Caller(
                tenant=tenant.id,
                key=key_id,
                scopes=frozenset({Scope.INFERENCE}),
                operator=False,
                expires_at=None,
                limits=plan.limits if plan else Limits(),
                over_budget=tenant.budget_state == BudgetState.EXCEEDED,
            )

    def forget(self) -> None:
        """After a key was changed: this process looks again."""
        with self._lock:
            self._forgotten += 1
            self._known.clear()

    def write_used(self) -> None:
        """When keys were last used, into the database. Raises SQLAlchemyError; the next call then
        writes all of it."""
        with self._lock:
            used = dict(self._used)
        if not used:
            return
        table = ApiKey.__table__  # type: ignore[attr-defined]
        earlier = or_(table.c.last_used_at.is_(None), table.c.last_used_at < bindparam("at"))
        wanted = update(table).where(table.c.id == bindparam("key"), earlier)
        # In the same order everywhere: other processes write the same rows.
        rows = [{"key": key, "at": used[key]} for key in sorted(used)]
        with self._database.begin() as connection:
            connection.execute(wanted.values(last_used_at=bindparam("at")), rows)
        with self._lock:
            for key, at in used.items():
                if self._used.get(key) == at:
                    del self._used[key]

    def _checked(self, caller: Caller) -> Caller:
        now = utc_now()
        if caller.expires_at is not None and now >= caller.expires_at:
            raise ApiError(401, "expired_api_key", "The API key has expired.")
        with self._lock:
            self._used[caller.key] = now
        return caller


def _caller(key: ApiKey, tenant: Tenant, plan: Plan | None) -> Caller:
    return Caller(
        tenant=tenant.id,
        key=key.id,
        scopes=frozenset(scope for scope in Scope if scope in key.scopes),
        operator=tenant.operator,
        expires_at=key.expires_at,
        limits=plan.limits if plan else Limits(),
        over_budget=tenant.budget_state == BudgetState.EXCEEDED,
    )


def _key(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        message = "No API key given: send 'Authorization: Bearer <key>'."
        raise ApiError(401, "invalid_api_key", message)
    return key.strip()
