"""What was asked and answered, where a deployment's owner wants it kept."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, utc_now


class CapturedExchange(SQLModel, table=True):
    """After redaction; the newest ones of a deployment."""

    __table_args__ = (Index("ix_capturedexchange_of", "tenant_id", "deployment_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id")
    deployment_id: str = Field(foreign_key="deployment.id")
    adapter: str  # that answered; "": the base model
    asked: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # messages, or prompt
    answer: str = Field(sa_type=Reason)
    shadows: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))  # others' answers
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)
