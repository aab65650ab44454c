"""Fine-tuning: jobs, and what they told."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, text
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.entities.work import WorkState

NO_PLACE: dict[str, Any] = {"host": "", "slot": None, "yielding": False}


class TrainingJob(SQLModel, table=True):
    """An adapter that is made of a file: the next version of a repo, when it has succeeded."""

    __table_args__ = (
        Index("ix_trainingjob_tenant_at", "tenant_id", "created_at"),
        Index("uq_trainingjob_version", "tenant_id", "repo", "version", unique=True),
        Index(
            "uq_trainingjob_place",
            *("host", "slot"),
            unique=True,
            sqlite_where=text("host != ''"),
            postgresql_where=text("host != ''"),
        ),
    )

    id: str = Field(default_factory=lambda: new_id("ftjob"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id")
    base_model: str
    repo: str
    version: int  # that it is to become
    parent: str = ""  # the adapter that it goes on from
    training_file: str  # id
    validation_file: str = ""
    settings: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    notes: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    state: str = Field(default=WorkState.QUEUED.value, index=True)
    error: str = Field(default="", sa_type=Reason)
    adapter: str = ""  # what came of it
    step: int = 0
    total_steps: int = 0
    left_s: float | None = None  # until its end, as its speed is
    tokens: int = 0  # learned from
    loss: float | None = None  # the latest
    validation_loss: float | None = None
    host: str = Field(default="")  # of its place of the fleet; "": it has none
    slot: int | None = None
    placed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # when it last got one
    yielding: bool = False  # it is to leave it
    runner: str = ""
    attempts: int = 0  # begun without a checkpoint since
    beat_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class TrainingEvent(SQLModel, table=True):
    """A message, or the figures of a step."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="trainingjob.id", index=True, ondelete="CASCADE")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    level: str = "info"
    message: str = Field(sa_type=Reason)
    figures: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
