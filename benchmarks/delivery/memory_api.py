"""The API process with tokens out of its own memory: what the endpoint costs without Redis."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.app import build
from api.requests.inflight import Ongoing
from api.requests.waiting import MOST_EVENTS, Waiting
from benchmarks.delivery.fake_replica import SETTLE_S, token
from loraplex.garbage import collect_less
from loraplex.keys import Lane
from loraplex.messages import Job, Shown, TokenEvent
from loraplex.settings import ApiSettings


class Memory:
    """`Inflight` without a queue: a full buffer is there whenever an answer asks for it."""

    def __init__(self) -> None:
        self._most: dict[str, int] = {}
        self._added = 0.0

    async def enqueue(
        self, lane: Lane, jobs: Sequence[Job], shown: Shown, **bounds: Any
    ) -> Ongoing:
        for job in jobs:
            self._most[job.request] = job.sampling.max_tokens
        self._added = time.monotonic()
        answers = [Waiting(lane, job.request) for job in jobs]
        return Ongoing(lane, shown, secrets.token_hex(4), answers)

    async def next(self, waiting: Waiting, deadline: float) -> list[TokenEvent]:
        while time.monotonic() - self._added < SETTLE_S:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)  # the other streams have their turns
        start, most = waiting.position, self._most[waiting.request]
        waiting.position = min(start + MOST_EVENTS, most)
        return [
            TokenEvent(waiting.request, p, [token(p)], "length" if p + 1 == most else None)
            for p in range(start, waiting.position)
        ]

    def done(self, ongoing: Ongoing) -> None:
        for waiting in ongoing.answers:
            del self._most[waiting.request]

    gone = done


def build_in_memory(settings: ApiSettings) -> FastAPI:
    app = build(settings)
    ordinary = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ordinary(app):
            app.state.loraplex = replace(app.state.loraplex, inflight=Memory())
            yield

    app.router.lifespan_context = lifespan
    return app


if __name__ == "__main__":
    settings = ApiSettings()
    app = build_in_memory(settings)
    collect_less()
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False)
