"""What is kept of requests: usage, responses, batches."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from loraplex.batch_status import BatchStatus
from loraplex.entities.columns import UtcDateTime, new_id, utc_now


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


class Totals(SQLModel, table=True):
    """Counters and histograms of a tenant's answers by a deployment, since it was made.

    Changed in the transaction that stores the usage records: each is counted once.
    """

    deployment_id: str = Field(primary_key=True)
    tenant_id: str = Field(primary_key=True)
    counted: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
