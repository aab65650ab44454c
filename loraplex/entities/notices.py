"""Who is told of events: webhooks and what was sent."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel

from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now


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
