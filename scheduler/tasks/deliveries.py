"""Send a webhook's delivery; what fails is due again later (`scheduler/webhooks.py` asks)."""

import logging
import time
from datetime import timedelta

import httpx
from sqlalchemy import update
from sqlmodel import Session, col

from loraplex import outbound
from loraplex.compare_and_set import changed
from loraplex.database import connect
from loraplex.entities import DeliveryState, Webhook, WebhookDelivery, utc_now
from loraplex.webhooks import signed
from scheduler.tasks.app import app, settings

log = logging.getLogger(__name__)
_engine = connect(settings.database)

PAUSES_S = (5, 30, 120, 600, 1800, 7200, 18000, 36000)  # after each try; then it has failed


@app.task
def deliver(delivery_id: str, tries: int) -> None:
    """One try, after `tries` others: run again it does nothing. Receivers tell repeats by
    `webhook-id`."""
    with Session(_engine, expire_on_commit=False) as session:
        row = session.get(WebhookDelivery, delivery_id)
        hook = session.get(Webhook, row.webhook_id) if row else None
        if row is None or hook is None or not _begin(session, row, tries):
            return
        status, error = _send(hook, row)
        row.status_code, row.error = status, error
        if status is not None and 200 <= status < 300:
            row.state, row.delivered_at = DeliveryState.DELIVERED, utc_now()
        elif row.attempts > len(PAUSES_S):
            row.state = DeliveryState.FAILED
        session.commit()
        log.info("delivery=%s attempt=%d status=%s %s", row.id, row.attempts, status, error)


def _begin(session: Session, row: WebhookDelivery, tries: int) -> bool:
    """Count the try, and say when the next one is due if this one leaves no word."""
    pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
    counted = (
        update(WebhookDelivery)
        .where(
            col(WebhookDelivery.id) == row.id,
            col(WebhookDelivery.attempts) == tries,
            col(WebhookDelivery.state) == DeliveryState.PENDING.value,
        )
        .values(attempts=tries + 1, next_at=utc_now() + timedelta(seconds=pause_s))
    )
    won = changed(session, counted) == 1
    session.commit()
    session.refresh(row)
    return won


def _send(hook: Webhook, row: WebhookDelivery) -> tuple[int | None, str]:
    body = row.body.encode()
    headers = {"content-type": "application/json", "user-agent": "loraplex"}
    headers |= signed(hook.secret, row.id, int(time.time()), body)
    try:
        status = outbound.post(hook.url, body, headers, settings.callback_hosts)
    except (outbound.RefusedAddress, httpx.HTTPError, OSError, UnicodeError) as failed:
        return None, f"{type(failed).__name__}: {failed}"[:500]
    return status, "" if 200 <= status < 300 else f"answered {status}"
