"""What is drawn of deployments over time."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel


class PointKind(StrEnum):
    ANSWERS = "answers"  # of usage records, each once
    LOAD = "load"  # of what lanes and replicas said


class ChartPoint(SQLModel, table=True):
    """What happened at a deployment in `step_s` seconds from `at` on (see `loraplex.charts`).

    Where there was nothing there is no row; a row of the deployment "" says that somebody looked.
    """

    __table_args__ = (Index("ix_chartpoint_step_at", "step_s", "at"),)

    deployment_id: str = Field(primary_key=True)
    step_s: int = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    at: int = Field(primary_key=True, sa_type=BigInteger)  # Unix seconds
    figures: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class ReplicaCounts(SQLModel, table=True):
    """One row: what each replica's process had counted where the latest points of load end."""

    id: int = Field(default=1, primary_key=True)
    counts: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
