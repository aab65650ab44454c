"""What tenants bring: adapters in repos, datasets, files; and the URLs by which they bring them."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Column, Index, text
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.entities.work import WorkState


class Repo(SQLModel, table=True):
    """Versions of an adapter under one name."""

    __table_args__ = (Index("uq_repo_name", "tenant_id", "name", unique=True),)

    id: str = Field(default_factory=lambda: new_id("repo"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    name: str
    description: str = ""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class Adapter(SQLModel, table=True):
    """One version of a repo: immutable LoRA weights, identified by their digest; or a checkpoint of
    the training that was to make it.

    The row stays when the version is deleted: its number never comes to mean something else.
    """

    __table_args__ = (
        Index("uq_adapter_version", "tenant_id", "repo", "version", "checkpoint", unique=True),
    )

    id: str = Field(default_factory=lambda: new_id("ada"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    repo: str
    version: int
    checkpoint: int = 0  # steps of its training; 0: the version itself
    base_model: str
    digest: str = Field(index=True)  # SHA-256 of config and weights
    rank: int
    targets: list[str] = Field(sa_column=Column(JSON, nullable=False))
    size_bytes: int
    archived: bool = False  # not listed; served to who names it
    tags: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    # What it was made of: `source` of an import; `job`, `dataset`, `parent` and figures of a
    # training.
    lineage: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    @property
    def ref(self) -> str:
        return f"{self.repo}/{self.tag}"

    @property
    def tag(self) -> str:
        return f"{self.version}@{self.checkpoint}" if self.checkpoint else str(self.version)


class Alias(SQLModel, table=True):
    """`repo@name`: which version that is now, or which ones and how much of the traffic each."""

    tenant_id: str = Field(foreign_key="tenant.id", primary_key=True)
    repo: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    base_model: str  # of all of its versions
    weights: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))  # by version
    previous: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))  # to roll back to
    shadow: int | None = None  # the version that is asked, too
    shadow_percent: float = 0.0  # of the traffic
    changed_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    @property
    def ref(self) -> str:
        return f"{self.repo}@{self.name}"


class AdapterImport(SQLModel, table=True):
    """A version that is fetched from a hub, S3 or a folder by a task worker; or a base model."""

    __table_args__ = (
        Index("ix_adapterimport_tenant_at", "tenant_id", "created_at"),
        # The same is not fetched twice at once.
        Index(
            "uq_adapterimport_unfinished",
            *("tenant_id", "source", "repo"),
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    id: str = Field(default_factory=lambda: new_id("imp"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id")
    source: str
    repo: str
    base_model: str = ""  # instead of the one in the config
    model: str = ""  # the base model that it is to be, instead of an adapter
    token: str = ""  # the hub's, locked; gone with its end
    state: str = Field(default=WorkState.QUEUED.value, index=True)
    doing: str = Field(default="", sa_type=Reason)
    progress: float | None = None  # 0 to 1
    error: str = Field(default="", sa_type=Reason)  # why it failed
    adapter: str = ""  # what came of it, REPO/VERSION
    runner: str = ""  # the task that runs it
    attempts: int = 0  # tasks that have begun it
    beat_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)  # its latest sign
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class StoredFile(SQLModel, table=True):
    """A file of a tenant; its content is in the file store."""

    id: str = Field(default_factory=lambda: new_id("file"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    filename: str
    purpose: str  # as OpenAI's: batch, batch_output, fine-tune …
    bytes: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class Dataset(SQLModel, table=True):
    """A file of training data under a name: rows with the same columns."""

    __table_args__ = (Index("uq_dataset_name", "tenant_id", "name", unique=True),)

    id: str = Field(default_factory=lambda: new_id("data"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    name: str
    file_id: str = Field(foreign_key="storedfile.id", index=True)
    columns: list[str] = Field(sa_column=Column(JSON, nullable=False))
    rows: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class TransferKind(StrEnum):
    ADAPTER = "adapter"  # upload of a version; its target is the repo
    DATASET = "dataset"  # upload of a file; its target is the file's name
    FILE = "file"  # download of a file; its target is the file's id


class Transfer(SQLModel, table=True):
    """URLs that need no key, for a short time: who has one may send, or read, what it names."""

    id: str = Field(default_factory=lambda: new_id("move"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    kind: str
    target: str
    sha256: str  # of the secret in its URLs
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
