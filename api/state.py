"""What the process holds between requests: made in the lifespan, reached through `app.state`."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from api.keyring import Keyring
from api.metrics import ApiMetrics
from api.requests.inflight import Inflight
from api.requests.models import ServedModels
from api.requests.queues import Queues
from api.requests.resolver import Resolver
from loraplex.broker.api import ApiBroker
from loraplex.broker.limiter import Limiter
from loraplex.registry import Registry
from loraplex.secret_box import SecretBox
from loraplex.settings import ApiSettings
from loraplex.store.adapters import AdapterStore
from loraplex.store.files import FileStore
from loraplex.store.models import ModelStore
from loraplex.store.staging import Staging

if TYPE_CHECKING:
    from api.registry.imports import ImportEnds
    from api.requests.exchange import Exchange


@dataclass(frozen=True, slots=True)
class State:
    settings: ApiSettings
    database: Engine
    broker: ApiBroker
    inflight: Inflight
    models: ModelStore
    served: ServedModels
    adapters: AdapterStore
    registry: Registry
    keyring: Keyring
    limiter: Limiter
    resolver: Resolver
    queues: Queues
    files: FileStore
    imports: "ImportEnds"
    staging: Staging
    secrets: SecretBox
    exchanges: "asyncio.Queue[Exchange]"
    metrics: ApiMetrics

    def keep(self, exchange: "Exchange") -> None:
        """If there is room: it is a sample."""
        with suppress(asyncio.QueueFull):
            self.exchanges.put_nowait(exchange)


async def state_of(request: Request) -> State:
    return cast(State, request.app.state.loraplex)


StateDep = Annotated[State, Depends(state_of)]
