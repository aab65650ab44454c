"""SQLModel tables: what outlives a process. Times are UTC; ids are short random strings."""

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    String,
    TypeDecorator,
    text,
)
from sqlmodel import Field, SQLModel

from loraplex.batch_status import BatchStatus
from loraplex.budget_state import BudgetState
from loraplex.keys import Lane
from loraplex.limits import Limits
from loraplex.replica_state import ReplicaState
from loraplex.status import Status


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(6)}"


def utc_now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC; SQLite drops the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Reason(TypeDecorator[str]):
    """A text from outside (an error, a log's tail). PostgreSQL's text can't hold a NUL."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value.replace("\0", "") if value is not None else None


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


class Deployment(SQLModel, table=True):
    """A base model served under one name, with scaling bounds and a status."""

    # The name is free again once the deployment is deleted.
    __table_args__ = (
        Index(
            "uq_deployment_live_name",
            "tenant_id",
            "name",
            unique=True,
            sqlite_where=text("status != 'deleted'"),
            postgresql_where=text("status != 'deleted'"),
        ),
    )

    id: str = Field(default_factory=lambda: new_id("dep"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    name: str
    description: str = ""
    base_model: str
    min_replicas: int
    max_replicas: int
    cooldown_time: int  # seconds
    scale_up_threshold: int  # queued + running per replica
    target_wait_s: float = 10.0  # a request should not queue for longer
    cold_start_weight: float = 3.0  # idle seconds that a second of a cold start is worth
    schedules: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False)
    )
    priority: int = 0  # who yields where the fleet is full
    shared: bool = False  # the platform's: every tenant may query it
    # What each tenant may ask of it, as in `Plan`.
    limits: dict[str, int] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    revision: int = 1  # whose lane requests go to
    target: int = 1  # what shall serve
    prepared: int = 0  # newest revision whose artefacts are in the store
    served: int = 0  # the latest one that had a ready replica: a change that fails goes back to it
    progress: float | None = None  # of fetching them, 0 to 1
    starts: int = 0  # replicas that it ever had
    status: str = Field(default=Status.PENDING.value, index=True)
    reason: str = Field(default="", sa_type=Reason)  # why it is in this status
    failed_starts: int = 0  # in a row
    retry_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # back-off of starts
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    changed_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    @property
    def lane(self) -> Lane:
        return Lane(self.base_model, self.id)


class Revision(SQLModel, table=True):
    """What the replicas of a deployment are made of. A change makes the next one."""

    deployment_id: str = Field(foreign_key="deployment.id", primary_key=True)
    number: int = Field(primary_key=True)
    base_model: str
    # Settings of its engine (`LORAPLEX_DTYPE` …), over those of the platform.
    engine: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    retired: bool = False  # nothing of it is left
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    @property
    def lane(self) -> Lane:
        return Lane(self.base_model, self.deployment_id)


class Leadership(SQLModel, table=True):
    """One row: the latest epoch that a scaler has written in. An earlier one writes no more."""

    id: int = Field(default=1, primary_key=True)
    epoch: int = 0


class Replica(SQLModel, table=True):
    """One GPU worker as the scaler means it to be. Written before anything is started.

    Its id is its deployment's with an ordinal: two scalers that mean the same one write one row.
    """

    id: str = Field(primary_key=True)
    deployment_id: str = Field(foreign_key="deployment.id", index=True)
    revision: int = 1
    host: str = "local"
    slot: int = 0
    state: str = Field(default=ReplicaState.STARTING.value, index=True)
    reason: str = Field(default="", sa_type=Reason)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    asked_at: datetime = Field(
        default_factory=utc_now, sa_type=UtcDateTime
    )  # latest start or order
    ready_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    gone_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)


class Adapter(SQLModel, table=True):
    """One version of a repo: immutable LoRA weights, identified by their digest."""

    __table_args__ = (Index("uq_adapter_version", "tenant_id", "repo", "version", unique=True),)

    id: str = Field(default_factory=lambda: new_id("ada"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    repo: str
    version: int
    base_model: str
    digest: str = Field(index=True)  # SHA-256 of config and weights
    rank: int
    targets: list[str] = Field(sa_column=Column(JSON, nullable=False))
    size_bytes: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    @property
    def ref(self) -> str:
        return f"{self.repo}/{self.version}"


class UsageRecord(SQLModel, table=True):
    """What one answer took (see `loraplex.messages.Usage`): one row for each, ever."""

    __table_args__ = (Index("ix_usagerecord_tenant_at", "tenant_id", "at"),)

    id: str = Field(primary_key=True)  # the answer's, and its job's on the lane
    request: str  # a request for several answers has several records
    first: bool = True  # of the request's answers
    at: int = Field(sa_type=BigInteger, index=True)  # Unix seconds, when it ended
    tenant_id: str
    key_id: str
    deployment_id: str = Field(index=True)
    adapter: str  # as its tenant names it; "": the base model
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_s: float
    first_token_s: float | None = None
    duration_s: float
    status: str  # stop, length, cancelled, expired or error
    error: str = ""  # code


class StoredFile(SQLModel, table=True):
    """A file of a tenant; its content is in the file store."""

    id: str = Field(default_factory=lambda: new_id("file"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    filename: str
    purpose: str  # as OpenAI's: batch, batch_output, fine-tune …
    bytes: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class StoredResponse(SQLModel, table=True):
    """A response of /v1/responses, and the messages that it goes on from."""

    id: str = Field(primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    body: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    context: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)


class Batch(SQLModel, table=True):
    """Requests of a file, run at low priority."""

    id: str = Field(default_factory=lambda: new_id("batch"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    key_id: str  # whose it is charged to
    endpoint: str
    input_file_id: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    notes: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    status: str = Field(default=BatchStatus.VALIDATING.value, index=True)
    errors: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False)
    )
    total: int = 0
    completed: int = 0
    failed: int = 0
    # When it came to each status, Unix seconds.
    times: dict[str, int] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    runner: str = ""  # the API process that runs it
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Webhook(SQLModel, table=True):
    """Where a tenant wants to be told of events."""

    id: str = Field(default_factory=lambda: new_id("hook"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    url: str
    events: list[str] = Field(sa_column=Column(JSON, nullable=False))  # types, or patterns of them
    secret: str  # signs what is sent
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class WebhookDelivery(SQLModel, table=True):
    """One event for one webhook: sent until it is answered with 2xx, for about a day."""

    __table_args__ = (Index("ix_webhookdelivery_due", "state", "next_at"),)

    id: str = Field(primary_key=True)  # the webhook's and the event's
    webhook_id: str = Field(foreign_key="webhook.id", index=True, ondelete="CASCADE")
    type: str
    body: str  # JSON
    state: str = DeliveryState.PENDING.value
    attempts: int = 0
    next_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)  # while pending
    status_code: int | None = None  # of the latest try
    error: str = Field(default="", sa_type=Reason)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DeploymentEvent(SQLModel, table=True):
    """A status change or a scaling decision: who, why, when."""

    id: int | None = Field(default=None, primary_key=True)
    deployment_id: str = Field(foreign_key="deployment.id", index=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    kind: str  # a loraplex.status.Event, or "scaled"
    actor: str  # "scaler", "task", or "user:<tenant>"
    from_status: str
    to_status: str
    reason: str = Field(default="", sa_type=Reason)
    inputs: dict[str, float] | None = Field(default=None, sa_column=Column(JSON))  # of a decision
