"""The API's side: enqueue, come back, leave, cancel, listen, read the journal."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

import redis.asyncio

from loraplex.broker.cancellation import arguments
from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import AlreadyKnown, BacklogFull, DeadLetter, GateShut, Recorded
from loraplex.broker.scripts import source
from loraplex.keys import APIS, GROUP, WAKE_CHANNEL, Lane, reply_channel
from loraplex.messages import (
    Job,
    ReplicaReport,
    Shown,
    Step,
    decode_job,
    decode_report,
    decode_shown,
    decode_step,
    encode,
)

Stopped = Literal["kept", "stopped", "ended"]


class ApiBroker:
    """One per API process. `api_id` names its reply channel."""

    def __init__(self, client: "redis.asyncio.Redis", api_id: str) -> None:
        self._redis = client
        self.api_id = api_id
        scripts = ("enqueue", "attach", "cancel", "here")
        self._enqueue, self._attach, self._cancel, self._here = (
            client.register_script(source(name)) for name in scripts
        )

    async def ping(self) -> None:
        """Raises one of `connection.Unavailable` when Redis doesn't answer."""
        await cast(Any, self._redis.ping())

    async def here(self) -> None:
        """This process is alive: its requests are not given up."""
        await self._here(keys=[APIS], args=[self.api_id])

    async def enqueue(
        self,
        lane: Lane,
        jobs: Sequence[Job],
        shown: Shown,
        waiter: str,
        *,
        max_backlog: int,
        keep_s: float,
    ) -> list[str]:
        """Put a request's jobs on their lane: their stream ids, which start with Redis' clock.

        `waiter` (`{api_id}/…`) waits for it; its record is kept for `keep_s`. Raises BacklogFull,
        GateShut, AlreadyKnown.
        """
        pairs = [part for job in jobs for part in (job.request, encode(job))]
        reply = await self._enqueue(
            keys=[lane.jobs, lane.gate, lane.request_prefix + shown.request],
            args=[
                *(max_backlog, WAKE_CHANNEL, lane.name, encode(shown), int(keep_s) + 1),
                *(waiter, self.api_id, *pairs),
            ],
        )
        verdict, *details = (part.decode() for part in reply)
        if verdict == "KNOWN":
            raise AlreadyKnown(shown.request)
        if verdict == "FULL":
            raise BacklogFull(int(details[0]))
        if verdict == "SHUT":
            raise GateShut(details[0])
        return details

    async def attach(self, lane: Lane, request: str, waiter: str) -> Recorded | None:
        """Wait for a request that was sent before. None: unknown, or kept no longer."""
        keys = [lane.request_prefix + request, lane.journal]
        reply = await self._attach(keys=keys, args=[waiter])
        if not reply:
            return None
        entries = reply[1].decode().split()
        return Recorded(decode_shown(reply[0]), entries, reply[2].decode())

    async def recorded(self, lane: Lane, request: str) -> Recorded | None:
        """The same without waiting for it."""
        row: Any = await cast(Any, self._redis.hgetall(lane.request_prefix + request))
        if not row:
            return None
        return Recorded(decode_shown(row[b"shown"]), row[b"entries"].decode().split(), "$")

    async def state_of(self, lane: Lane, entries: Sequence[str]) -> str:
        """Of a request with these stream ids: "queued", "running" or "ended"."""
        states = set()
        for entry in entries:
            if not await self._redis.xrange(lane.jobs, entry, entry):
                states.add("ended")
                continue
            try:
                taken = await self._redis.xpending_range(lane.jobs, GROUP, entry, entry, 1)
            except redis.ResponseError:  # no replica has ever come
                taken = []
            states.add("running" if taken else "queued")
        return next(state for state in ("running", "queued", "ended") if state in states)

    async def leave(
        self,
        lane: Lane,
        request: str,
        entries: Sequence[str],
        waiter: str,
        *,
        unserved: bool = False,
    ) -> Stopped:
        """`waiter` waits no longer; if it was the last, the request is stopped wherever it is.

        `unserved`: then it is forgotten, too, so that it may be sent again.
        """
        keys, args = arguments(lane, request, entries, waiter, unserved=unserved)
        return cast(Stopped, (await self._cancel(keys=keys, args=args)).decode().lower())

    async def cancel(self, lane: Lane, request: str, entries: Sequence[str]) -> Stopped:
        """Stop a request wherever it is, whoever waits for it: they are told."""
        return await self.leave(lane, request, entries, "")

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

    async def journal(
        self, lane: Lane, after: str, *, block_s: float = 0.0
    ) -> list[tuple[str, Step]]:
        """Up to 500 entries of a lane's journal after an id, waiting for the first if `block_s`."""
        block = int(block_s * 1000) or None
        reply: Any = await self._redis.xread({lane.journal: after}, count=500, block=block)
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) and reply else None
        if entries is None:
            entries = reply[0][1] if reply else []
        return [(id_.decode(), decode_step(fields[b"s"])) for id_, fields in entries]

    async def dead_letters(self, lane: Lane) -> list[DeadLetter]:
        """Oldest first."""
        entries: Any = await self._redis.xrange(lane.dead_letters)
        return [
            DeadLetter(id_.decode(), decode_job(fields[b"j"]), fields[b"error"].decode())
            for id_, fields in entries
        ]

    async def drop_dead_letter(self, lane: Lane, entry: str) -> None:
        await self._redis.xdel(lane.dead_letters, entry)

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
