"""Events for the world outside: who wants which, and how they are signed.

Signatures are Standard Webhooks' (https://www.standardwebhooks.com): HMAC-SHA256 of
`id.timestamp.body`, so that receivers verify them with a library (OpenAI's SDK has one, too).
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlmodel import Session, col, select

from loraplex.entities import Webhook, WebhookDelivery, utc_now
from loraplex.status import Status

TYPES = (
    *(f"deployment.{status.value}" for status in Status),
    "budget.warned",
    "budget.exceeded",
    "ping",
)
_PREFIX = "whsec_"


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def wanted(patterns: Sequence[str], type_: str) -> bool:
    """Patterns are types, or such as `deployment.*` and `*`. A ping comes when it is asked for."""
    return type_ == "ping" or any(fnmatchcase(type_, pattern) for pattern in patterns)


def signed(secret: str, name: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery. `at`: Unix seconds, now: receivers refuse what is old."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    mac = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def announce(
    session: Session, tenant: str, type_: str, event: str, at: datetime, data: dict[str, Any]
) -> list[WebhookDelivery]:
    """Add a delivery to each of the tenant's webhooks that wants it; not committed. `event` names
    what happened: announced again, it is the same deliveries."""
    hooks = session.exec(select(Webhook).where(Webhook.tenant_id == tenant)).all()
    return [
        found
        for hook in hooks
        if wanted(hook.events, type_)
        and at >= hook.created_at
        and (found := deliver_to(session, hook, type_, event, at, data)) is not None
    ]


def deliver_to(
    session: Session, hook: Webhook, type_: str, event: str, at: datetime, data: dict[str, Any]
) -> WebhookDelivery | None:
    """A delivery that is due now. None: it is there already."""
    name = f"{hook.id}.{event}"
    if session.get(WebhookDelivery, name) is not None:
        return None
    body = {"type": type_, "timestamp": at.isoformat(), "data": data}
    delivery = WebhookDelivery(
        id=name, webhook_id=hook.id, type=type_, body=json.dumps(body), next_at=utc_now()
    )
    session.add(delivery)
    return delivery


def deliveries_of(session: Session, hook: str, most: int = 100) -> Sequence[WebhookDelivery]:
    """The latest first."""
    wanted_rows = select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook)
    return session.exec(
        wanted_rows.order_by(col(WebhookDelivery.created_at).desc()).limit(most)
    ).all()
