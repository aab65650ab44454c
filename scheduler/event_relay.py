"""Stored events → the event bus. The table is the outbox: whatever process has stored an event, and
however it died then, the leading scaler publishes it, in order, at least once."""

import logging
from collections import deque

from kombu import Connection, Exchange, Producer
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.broker.scaler import ScalerBroker
from loraplex.entities import EVENT_OVERLAP, Deployment, DeploymentEvent
from loraplex.keys import BUS_PREFIX
from scheduler.webhooks import Webhooks

log = logging.getLogger(__name__)

EXCHANGE = Exchange("loraplex.events", type="topic", durable=True)
_MOST = 500  # events a look


class EventRelay:
    """Routing keys: `deployment.<kind>`, such as `deployment.replica_ready`."""

    def __init__(
        self, database: Engine, broker: ScalerBroker, redis_url: str, webhooks: Webhooks
    ) -> None:
        self._database = database
        self._broker = broker
        self._webhooks = webhooks
        options = {"global_keyprefix": BUS_PREFIX, "socket_timeout": 5, "socket_connect_timeout": 5}
        self._connection = Connection(redis_url, transport_options=options)
        self._producer: Producer | None = None
        self._sent: deque[int] = deque(maxlen=2 * EVENT_OVERLAP)

    def publish(self) -> None:
        """One query and, when there is nothing new, nothing else."""
        after = self._broker.published()
        with Session(self._database) as session:
            rows = session.exec(
                select(DeploymentEvent, Deployment.name, Deployment.tenant_id)
                .where(
                    col(DeploymentEvent.id) > after - EVENT_OVERLAP,
                    DeploymentEvent.deployment_id == Deployment.id,
                )
                .order_by(col(DeploymentEvent.id))
                .limit(_MOST)
            ).all()
        fresh = [row for row in rows if row[0].id not in self._sent]
        if fresh:
            self._webhooks.announce(fresh)
        for event, name, tenant in fresh:
            self._send(event, name, tenant)
            self._sent.append(event.id or 0)
        if fresh:
            self._broker.set_published(rows[-1][0].id or 0)

    def _send(self, event: DeploymentEvent, name: str, tenant: str) -> None:
        if self._producer is None:
            self._producer = self._connection.Producer(exchange=EXCHANGE, serializer="json")
        body = event.model_dump(mode="json") | {"deployment": name, "tenant": tenant}
        self._producer.publish(
            body, routing_key=f"deployment.{event.kind}", declare=[EXCHANGE], retry=False
        )
