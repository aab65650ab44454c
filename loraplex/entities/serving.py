"""What serves: deployments, their revisions, replicas and history."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, text
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import Status


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
    capture: float = 0.0  # share of its owner's requests that is kept with their answers
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


# Ids that who follows events looks at again: of two transactions the later id may be seen first.
EVENT_OVERLAP = 50


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
