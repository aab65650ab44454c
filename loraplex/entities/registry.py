"""What tenants bring: adapters and files."""

from datetime import datetime

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import UtcDateTime, new_id, utc_now


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


class StoredFile(SQLModel, table=True):
    """A file of a tenant; its content is in the file store."""

    id: str = Field(default_factory=lambda: new_id("file"), primary_key=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    filename: str
    purpose: str  # as OpenAI's: batch, batch_output, fine-tune …
    bytes: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
