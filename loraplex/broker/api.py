"""The API's side: enqueue, cancel, listen for tokens, read the journal."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

import redis.asyncio

from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import BacklogFull, Enqueued, GateShut
from loraplex.broker.scripts import source
from loraplex.keys import WAKE_CHANNEL, Lane, reply_channel
from loraplex.messages import (
    Cancel,
    Job,
    ReplicaReport,
    Step,
    TokenEvent,
    decode_report,
    decode_step,
    encode,
)


class ApiBroker:
    """One per API process. `api_id` names its reply channel."""

    def __init__(self, client: "redis.asyncio.Redis", api_id: str) -> None:
        self._redis = client
        self.api_id = api_id
        self._enqueue = client.register_script(source("enqueue"))
        self._cancel = client.register_script(source("cancel"))

    async def ping(self) -> None:
        """Raises one of `connection.Unavailable` when Redis doesn't answer."""
        await cast(Any, self._redis.ping())

    async def enqueue(self, lane: Lane, job: Job, max_backlog: int) -> Enqueued:
        """Put a job on its lane. Raises BacklogFull or GateShut."""
        reply = await self._enqueue(
            keys=[lane.jobs, lane.gate], args=[encode(job), max_backlog, WAKE_CHANNEL, lane.name]
        )
        verdict, detail = reply[0], reply[1].decode()
        if verdict == b"FULL":
            raise BacklogFull(int(detail))
        if verdict == b"SHUT":
            raise GateShut(detail)
        return Enqueued(entry=detail, waiting_before=int(reply[2]))

    async def cancel(self, lane: Lane, entry: str, request: str) -> None:
        """Stop a request wherever it is; nothing happens when it has ended."""
        message = encode(Cancel(request))
        await self._cancel(keys=[lane.jobs], args=[entry, lane.control_prefix, message])

    async def listen(self) -> AsyncIterator[Step | None]:
        """Steps for this process, for ever; first None, when the subscription is in force.

        Raises one of `connection.Unavailable` when the connection breaks: what was published
        meanwhile is in the journal.
        """
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(reply_channel(self.api_id))
            while True:
                message = await pubsub.get_message(timeout=5.0)
                if message is None:
                    await pubsub.ping()  # finds a dead connection while nothing is published
                elif message["type"] == "subscribe":
                    yield None
                elif message["type"] == "message":
                    yield decode_step(message["data"])

    async def journalled(self, lane: Lane, entry: str, request: str) -> list[TokenEvent]:
        """What was journalled for a request, in order of commitment (positions may repeat)."""
        found = []
        # Both ids come from the same Redis clock: nothing about a job precedes its enqueueing.
        start: str = entry.split("-")[0]
        while True:
            entries: Any = await self._redis.xrange(lane.journal, min=start, max="+", count=500)
            for _, fields in entries:
                step = decode_step(fields[b"s"])
                found += [event for event in step.events if event.request == request]
            if len(entries) < 500 or (found and found[-1].finish):
                return found
            start = "(" + entries[-1][0].decode()

    async def reports(self, lane: Lane) -> list[ReplicaReport]:
        """What the lane's replicas last said of themselves."""
        rows = await cast(Any, self._redis.hvals(lane.reports))
        return [decode_report(row) for row in rows]

    async def tokens_per_s(self, lane: Lane) -> float:
        """The lane's latest measured throughput; 0 when no replica has run."""
        return sum(report.tokens_per_s for report in await self.reports(lane))

    async def set_gate(self, lane: Lane, shut_reason: str | None) -> None:
        """Shut or open the lane at once. The scaler does it by the deployment's status anyway: so
        nothing is lost, only later, while Redis is away."""
        state: Any = {"state": "shut" if shut_reason else "open", "reason": shut_reason or ""}
        with suppress(*Unavailable):
            await cast(Any, self._redis.hset(lane.gate, mapping=state))
            await self.wake_scaler(lane)

    async def wake_scaler(self, lane: Lane) -> None:
        """A hint: the scaler looks once a second by itself."""
        with suppress(*Unavailable):
            await cast(Any, self._redis.publish(WAKE_CHANNEL, lane.name))

    async def aclose(self) -> None:
        await self._redis.aclose()
