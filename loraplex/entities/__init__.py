"""SQLModel tables: what outlives a process. Times are UTC; ids are short random strings."""

from loraplex.entities.answers import Batch, StoredResponse, Totals, UsageRecord
from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.entities.notices import DeliveryState, Webhook, WebhookDelivery
from loraplex.entities.registry import (
    UNFINISHED,
    Adapter,
    AdapterImport,
    Alias,
    Dataset,
    ImportState,
    Repo,
    StoredFile,
    Transfer,
    TransferKind,
)
from loraplex.entities.serving import Deployment, DeploymentEvent, Leadership, Replica, Revision
from loraplex.entities.tenancy import ApiKey, Plan, Tenant
from loraplex.entities.training import (
    UNFINISHED_TRAINING,
    TrainingEvent,
    TrainingJob,
    TrainingState,
)

__all__ = [
    "UNFINISHED",
    "UNFINISHED_TRAINING",
    "Adapter",
    "AdapterImport",
    "Alias",
    "ApiKey",
    "Batch",
    "Dataset",
    "DeliveryState",
    "Deployment",
    "DeploymentEvent",
    "ImportState",
    "Leadership",
    "Plan",
    "Reason",
    "Replica",
    "Repo",
    "Revision",
    "StoredFile",
    "StoredResponse",
    "Tenant",
    "Totals",
    "TrainingEvent",
    "TrainingJob",
    "TrainingState",
    "Transfer",
    "TransferKind",
    "UsageRecord",
    "UtcDateTime",
    "Webhook",
    "WebhookDelivery",
    "new_id",
    "utc_now",
]
