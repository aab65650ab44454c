"""Evaluations: the same questions to a base model and adapters of it, and how they answered."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now

_OR_NULL = JSON(none_as_null=True)


class Evaluation(SQLModel, table=True):
    """A batch whose answers are scored when it has ended."""

    __table_args__ = (Index("ix_evaluation_tenant_at", "tenant_id", "created_at"),)

    id: str = Field(default_factory=lambda: new_id("eval"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id")
    deployment: str
    dataset: str  # as it was named
    variants: list[str] = Field(sa_column=Column(JSON, nullable=False))  # "base", or repo/version
    metrics: list[str] = Field(sa_column=Column(JSON, nullable=False))
    json_schema: dict[str, Any] | None = Field(default=None, sa_column=Column(_OR_NULL))
    rows: int
    batch_id: str = Field(foreign_key="batch.id", unique=True)
    # By variant, the means of each metric; once it has been scored.
    scores: dict[str, Any] | None = Field(default=None, sa_column=Column(_OR_NULL))
    error: str = Field(default="", sa_type=Reason)  # why it could not be scored
    results_file_id: str | None = None
    scoring_asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
