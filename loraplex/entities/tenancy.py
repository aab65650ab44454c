"""Who uses the platform: tenants, their plans and keys."""

from datetime import datetime

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from loraplex.budget_state import BudgetState
from loraplex.entities.columns import UtcDateTime, new_id, utc_now
from loraplex.limits import Limits


class Plan(SQLModel, table=True):
    """Limits of those tenants that have it, over all that they use; None: none."""

    id: str = Field(primary_key=True)  # its name
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = None  # answers that wait or run at once
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    @property
    def limits(self) -> Limits:
        rates = (self.requests_per_min, self.tokens_per_min)
        return Limits(*rates, self.tokens_per_day, self.concurrent)


class Tenant(SQLModel, table=True):
    """Owner of deployments, adapters, keys and usage."""

    id: str = Field(primary_key=True)
    operator: bool = False  # runs the platform: makes tenants and their keys
    plan_id: str | None = Field(default=None, foreign_key="plan.id")
    budget: float | None = None  # cost of a calendar month (UTC), in the currency of the prices
    budget_warn_at: float = 0.8  # a part of it
    budget_state: str = BudgetState.WITHIN.value
    budget_month: str = ""  # that the state is of, such as 2026-11
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ApiKey(SQLModel, table=True):
    """An API key: only its SHA-256 is stored (the key itself is 256 random bits)."""

    id: str = Field(default_factory=lambda: new_id("key"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    name: str
    sha256: str = Field(unique=True, index=True)
    hint: str = ""  # its first characters: enough to know it again, not to use it
    scopes: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # within a minute
    replaced_by: str | None = None  # the key that it was rotated to
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
