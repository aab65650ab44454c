"""SQLModel tables: what outlives a process. Times are UTC; ids are short random strings."""

from loraplex.entities.answers import Batch, StoredResponse, Totals, UsageRecord
from loraplex.entities.charts import ChartPoint, PointKind, ReplicaCounts
from loraplex.entities.columns import Reason, UtcDateTime, new_id, utc_now
from loraplex.entities.evaluation import Evaluation
from loraplex.entities.exchange import CapturedExchange
from loraplex.entities.notices import DeliveryState, Webhook, WebhookDelivery
from loraplex.entities.registry import (
    Adapter,
    AdapterImport,
    Alias,
    Dataset,
    Repo,
    StoredFile,
    Transfer,
    TransferKind,
)
from loraplex.entities.serving import (
    EVENT_OVERLAP,
    Deployment,
    DeploymentEvent,
    Leadership,
    Replica,
    Revision,
)
from loraplex.entities.tenancy import ApiKey, Plan, Tenant
from loraplex.entities.training import NO_PLACE, TrainingEvent, TrainingJob
from loraplex.entities.work import UNFINISHED, WorkState

__all__ = [
    "EVENT_OVERLAP",
    "NO_PLACE",
    "UNFINISHED",
    "Adapter",
    "AdapterImport",
    "Alias",
    "ApiKey",
    "Batch",
    "CapturedExchange",
    "ChartPoint",
    "Dataset",
    "DeliveryState",
    "Deployment",
    "DeploymentEvent",
    "Evaluation",
    "Leadership",
    "Plan",
    "PointKind",
    "Reason",
    "Replica",
    "ReplicaCounts",
    "Repo",
    "Revision",
    "StoredFile",
    "StoredResponse",
    "Tenant",
    "Totals",
    "TrainingEvent",
    "TrainingJob",
    "Transfer",
    "TransferKind",
    "UsageRecord",
    "UtcDateTime",
    "Webhook",
    "WebhookDelivery",
    "WorkState",
    "new_id",
    "utc_now",
]
