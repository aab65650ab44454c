"""SQLModel tables: what outlives a process. Times are UTC; ids are short random strings."""

from loraplex.entities.answers import Batch, StoredResponse, UsageRecord
from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.entities.notices import DeliveryState, Webhook, WebhookDelivery
from loraplex.entities.registry import Adapter, StoredFile
from loraplex.entities.serving import Deployment, DeploymentEvent, Leadership, Replica, Revision
from loraplex.entities.tenancy import ApiKey, Plan, Tenant

__all__ = [
    "Adapter",
    "ApiKey",
    "Batch",
    "DeliveryState",
    "Deployment",
    "DeploymentEvent",
    "Leadership",
    "Plan",
    "Reason",
    "Replica",
    "Revision",
    "StoredFile",
    "StoredResponse",
    "Tenant",
    "UsageRecord",
    "UtcDateTime",
    "Webhook",
    "WebhookDelivery",
    "new_id",
    "utc_now",
]
