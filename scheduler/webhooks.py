"""Deployments' events → deliveries of webhooks, and those that are due → the task workers.

The table of deliveries is the outbox: whoever loses a task, it is asked for again."""

from collections.abc import Callable, Iterable
from datetime import timedelta

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex import webhooks
from loraplex.entities import DeliveryState, DeploymentEvent, WebhookDelivery, utc_now

ASK_AGAIN_S = 60.0  # a task that has not begun by then was lost
_MOST = 100  # a look


class Webhooks:
    def __init__(self, database: Engine, deliver: Callable[[str, int], object]) -> None:
        self._database = database
        self._deliver = deliver

    def announce(self, events: Iterable[tuple[DeploymentEvent, str, str]]) -> None:
        """Changes of status among events, each with its deployment's name and tenant."""
        with Session(self._database) as session:
            for event, name, tenant in events:
                if event.from_status == event.to_status:
                    continue
                data = event.model_dump(mode="json", exclude={"inputs", "deployment_id"})
                type_ = f"deployment.{event.to_status}"
                about = {"deployment": name, **data}
                webhooks.announce(session, tenant, type_, f"e{event.id}", event.at, about)
            session.commit()

    def ask(self) -> None:
        """For those that are due; one query where none is."""
        now = utc_now()
        with Session(self._database) as session:
            due = session.exec(
                select(WebhookDelivery)
                .where(
                    WebhookDelivery.state == DeliveryState.PENDING,
                    col(WebhookDelivery.next_at) <= now,
                )
                .order_by(col(WebhookDelivery.next_at))
                .limit(_MOST)
            ).all()
            tries = [(row.id, row.attempts) for row in due]
            for row in due:
                row.next_at = now + timedelta(seconds=ASK_AGAIN_S)
            session.commit()
        for name, before in tries:
            self._deliver(name, before)
