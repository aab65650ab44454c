"""/api/v1/webhooks: who is told of what, and the log of what was sent."""

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.security import Admin
from api.state import StateDep
from api.text import Text
from loraplex import outbound, webhooks
from loraplex.entities import DeliveryState, Webhook, WebhookDelivery, utc_now

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

_MOST = 20  # webhooks of a tenant
_MOST_PINGS = 5


def _known(pattern: str) -> str:
    if not any(webhooks.wanted([pattern], type_) for type_ in webhooks.TYPES if type_ != "ping"):
        raise ValueError(f"no event is {pattern!r}; there are: {', '.join(webhooks.TYPES)}")
    return pattern


Pattern = Annotated[str, Field(max_length=64), AfterValidator(_known)]


class WebhookCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: Text = Field(min_length=1, max_length=2048)
    events: list[Pattern] = Field(["*"], min_length=1, max_length=32)


class WebhookOut(BaseModel):
    id: str
    url: str
    events: list[str]
    created_at: datetime


class NewWebhookOut(WebhookOut):
    secret: str


class DeliveryOut(BaseModel):
    id: str
    type: str
    state: DeliveryState
    attempts: int
    next_at: datetime | None
    status_code: int | None
    error: str
    created_at: datetime
    delivered_at: datetime | None
    body: str


@router.post("", status_code=201)
def create(body: WebhookCreate, admin: Admin, state: StateDep) -> NewWebhookOut:
    """Be told of events, signed as https://www.standardwebhooks.com says; the secret is shown here
    and never again. An event comes at least once, for about a day until it is answered with 2xx."""
    try:
        outbound.check(body.url, state.settings.callback_hosts)
    except outbound.RefusedAddress as refused:
        raise bad_request(str(refused), "url") from refused
    row = Webhook(
        tenant_id=admin.tenant, url=body.url, events=body.events, secret=webhooks.new_secret()
    )
    with Session(state.database, expire_on_commit=False) as session:
        if len(_rows(session, admin.tenant)) >= _MOST:
            raise ApiError(409, "too_many", f"A tenant has at most {_MOST} webhooks.")
        session.add(row)
        session.commit()
    return NewWebhookOut(**row.model_dump())


@router.get("")
def list_all(admin: Admin, state: StateDep) -> dict[str, list[WebhookOut]]:
    with Session(state.database) as session:
        rows = _rows(session, admin.tenant)
        return {"data": [WebhookOut(**row.model_dump()) for row in rows]}


@router.delete("/{hook_id}")
def delete(hook_id: str, admin: Admin, state: StateDep) -> dict[str, Any]:
    """With the log of its deliveries."""
    with Session(state.database) as session:
        session.delete(_need(session, admin.tenant, hook_id))
        session.commit()
    return {"id": hook_id, "deleted": True}


@router.post("/{hook_id}/ping", status_code=202)
def ping(hook_id: str, admin: Admin, state: StateDep) -> DeliveryOut:
    """Send it an event of the type `ping`."""
    with Session(state.database, expire_on_commit=False) as session:
        hook = _need(session, admin.tenant, hook_id)
        waiting = [row for row in webhooks.deliveries_of(session, hook.id) if _waits(row)]
        if len(waiting) >= _MOST_PINGS:
            message = f"{len(waiting)} pings wait for an answer already: see its deliveries."
            raise ApiError(429, "too_many", message, retry_after_s=60)
        event = f"ping-{time.time_ns():x}"
        made = webhooks.deliver_to(session, hook, "ping", event, utc_now(), {})
        assert made is not None
        session.commit()
        return _shown(made)


@router.get("/{hook_id}/deliveries")
def deliveries(hook_id: str, admin: Admin, state: StateDep) -> dict[str, list[DeliveryOut]]:
    """The latest 100, newest first."""
    with Session(state.database) as session:
        hook = _need(session, admin.tenant, hook_id)
        return {"data": [_shown(row) for row in webhooks.deliveries_of(session, hook.id)]}


@router.post("/{hook_id}/deliveries/{delivery_id}/retry", status_code=202)
def retry(hook_id: str, delivery_id: str, admin: Admin, state: StateDep) -> DeliveryOut:
    """Send it again now, whatever became of it."""
    with Session(state.database, expire_on_commit=False) as session:
        hook = _need(session, admin.tenant, hook_id)
        row = session.get(WebhookDelivery, delivery_id)
        if row is None or row.webhook_id != hook.id:
            raise ApiError(404, "not_found", f"There is no delivery {delivery_id!r}.")
        row.state, row.attempts, row.next_at = DeliveryState.PENDING, 0, utc_now()
        session.commit()
        return _shown(row)


def _waits(row: WebhookDelivery) -> bool:
    return row.type == "ping" and row.state == DeliveryState.PENDING


def _rows(session: Session, tenant: str) -> list[Webhook]:
    wanted = select(Webhook).where(Webhook.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(Webhook.created_at))))


def _need(session: Session, tenant: str, hook_id: str) -> Webhook:
    row = session.get(Webhook, hook_id)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no webhook {hook_id!r}.")
    return row


def _shown(row: WebhookDelivery) -> DeliveryOut:
    due = row.next_at if row.state == DeliveryState.PENDING else None
    return DeliveryOut(**row.model_dump() | {"next_at": due})
