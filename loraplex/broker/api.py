"""The API's side: enqueue, come back, leave, cancel, listen, read the journal."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Literal, cast

import msgspec
import redis.asyncio

from loraplex.broker.cancellation import arguments
from loraplex.broker.connection import Unavailable, drop_idle
from loraplex.broker.interface import (
    Accepted,
    AlreadyKnown,
    BacklogFull,
    DeadLetter,
    GateShut,
    LogLine,
    MemoryFull,
    Page,
    Recorded,
    StillStopping,
)
from loraplex.broker.script_calls import ScriptCalls
from loraplex.broker.steps import readable, steps_of
from loraplex.comparison import Comparison, decode_comparison
from loraplex.explanation import Explanation, decode_explanation
from loraplex.keys import (
    APIS,
    COMPARE,
    COMPARISONS,
    DECISIONS,
    GROUP,
    IMPORTS,
    KILLS,
    LEADER,
    SCORINGS,
    TARGETS,
    WAKE_CHANNEL,
    Lane,
    reply_channel,
)
from loraplex.messages import (
    AdapterTiers,
    Job,
    ReplicaReport,
    Shown,
    Step,
    decode_job,
    decode_report,
    decode_shown,
    decode_tiers,
    encode,
)
from loraplex.metrics.target import Target, decode_target

Stopped = Literal["kept", "stopped", "ended"]


class ApiBroker:
    """One per API process. `api_id` names its reply channel."""

    def __init__(self, client: "redis.asyncio.Redis", api_id: str) -> None:
        self._redis = client
        self.api_id = api_id
        names = ("enqueue", "attach", "cancel", "here", "gate", "waiting")
        self._scripts = ScriptCalls(client, names)

    async def ping(self) -> None:
        """Raises one of `connection.Unavailable` when Redis doesn't answer."""
        await cast(Any, self._redis.ping())

    async def here(self) -> None:
        """This process is alive: its requests are not given up."""
        await self._scripts.call("here", keys=[APIS], args=[self.api_id])

    async def enqueue(
        self,
        lane: Lane,
        jobs: Sequence[Job],
        shown: Shown,
        waiter: str,
        *,
        max_backlog: int,
        keep_s: float,
    ) -> Accepted:
        """Put a request's jobs on their lane.

        `waiter` (`{api_id}/…`) waits for it; its record is kept for `keep_s`. Raises BacklogFull,
        GateShut, MemoryFull, AlreadyKnown, StillStopping.
        """
        pairs = [part for job in jobs for part in (job.request, encode(job))]
        reply = await self._scripts.call(
            "enqueue",
            keys=[lane.jobs, lane.gate, lane.request_prefix + shown.request, lane.journal],
            args=[
                *(max_backlog, WAKE_CHANNEL, lane.name, encode(shown), int(keep_s) + 1),
                *(waiter, self.api_id, *pairs),
            ],
        )
        verdict, *details = (part.decode() for part in reply)
        if verdict == "KNOWN":
            raise AlreadyKnown(shown.request)
        if verdict == "STOPPING":
            raise StillStopping(shown.request)
        if verdict == "MEMORY":
            raise MemoryFull
        if verdict == "FULL":
            raise BacklogFull(int(details[0]))
        if verdict == "SHUT":
            raise GateShut(details[0])
        return Accepted(details[2:], details[0], int(details[1]))

    async def attach(self, lane: Lane, request: str, waiter: str) -> Recorded | None:
        """Wait for a request that was sent before. None: unknown, or kept no longer."""
        keys = [lane.request_prefix + request, lane.journal, lane.jobs]
        reply = await self._scripts.call("attach", keys=keys, args=[waiter])
        if not reply:
            return None
        shown, entries, after, journal, *unfinished = reply
        return Recorded(
            decode_shown(shown),
            entries.decode().split(),
            after.decode(),
            frozenset(entry.decode() for entry in unfinished),
            journal.decode(),
        )

    async def recorded(self, lane: Lane, request: str) -> Recorded | None:
        """The same without waiting for it."""
        row: Any = await cast(Any, self._redis.hgetall(lane.request_prefix + request))
        if not row:
            return None
        entries = row[b"entries"].decode().split()
        return Recorded(decode_shown(row[b"shown"]), entries, stopped=b"stopped" in row)

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

    async def waiting(self, lane: Lane, most: int) -> list[str]:
        """Stream ids of the jobs that no replica has taken yet, oldest first."""
        found: list[bytes] = await self._scripts.call("waiting", [lane.jobs], [most])
        return [entry.decode() for entry in found]

    async def leave(
        self,
        lane: Lane,
        request: str,
        entries: Sequence[str],
        waiter: str,
        *,
        unserved: bool = False,
        wanted: Sequence[int | None] = (),
    ) -> Stopped:
        """`waiter` waits no longer; if it was the last, the request is stopped wherever it is.

        `unserved`: then it is forgotten, too, so that it may be sent again. `wanted`: see `Cancel`.
        """
        keys, args = arguments(lane, request, entries, waiter, unserved=unserved, wanted=wanted)
        return cast(
            Stopped, (await self._scripts.call("cancel", keys=keys, args=args)).decode().lower()
        )

    async def cancel(self, lane: Lane, request: str, entries: Sequence[str]) -> Stopped:
        """Stop a request wherever it is, whoever waits for it: they are told."""
        return await self.leave(lane, request, entries, "")

    async def listen(self) -> AsyncIterator[Step | None]:
        """Steps for this process, for ever; first None, when the subscription is in force.

        Raises one of `connection.Unavailable` when the connection breaks: what was published
        meanwhile is in the journal.
        """
        # What lies in the pool is as dead as the connection before this one.
        await drop_idle(self._redis)
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(reply_channel(self.api_id))
            silent = False
            while True:
                message = await pubsub.get_message(timeout=5.0)
                if message is None:  # a dead connection is silent, too
                    if silent:
                        raise redis.TimeoutError("the reply channel doesn't answer")
                    silent = True
                    await pubsub.ping()
                    continue
                silent = False
                if message["type"] == "subscribe":
                    yield None
                elif message["type"] == "message":
                    step = readable(message["data"])
                    if step is not None:
                        yield step

    async def on_lane(self, lane: Lane, entries: Sequence[str]) -> set[str]:
        """Those of the jobs that have not ended."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry in entries:
                pipeline.xrange(lane.jobs, entry, entry)
            found: list[Any] = await pipeline.execute()
        return {entry for entry, job in zip(entries, found, strict=True) if job}

    async def journal_page(self, lane: Lane, start: str, most: int) -> Page:
        """Up to `most` entries of a lane's journal from an id on."""
        entries: Any = await self._redis.xrange(lane.journal, min=start, count=most)
        return _page(entries, most)

    async def follow_journal(self, lane: Lane, after: str, seconds: float) -> Page:
        """Up to 500 entries of a lane's journal after an id; waits for the first."""
        block = int(seconds * 1000)
        reply: Any = await self._redis.xread({lane.journal: after}, count=500, block=block)
        if isinstance(reply, dict):
            return _page(next(iter(reply.values()))[0] if reply else [], 500)
        return _page(reply[0][1] if reply else [], 500)

    async def dead_letters(self, lane: Lane) -> list[DeadLetter]:
        """Oldest first."""
        entries: Any = await self._redis.xrange(lane.dead_letters)
        return [
            DeadLetter(id_.decode(), decode_job(fields[b"j"]), fields[b"error"].decode())
            for id_, fields in entries
        ]

    async def drop_dead_letter(self, lane: Lane, entry: str) -> None:
        await self._redis.xdel(lane.dead_letters, entry)

    async def reports(self, lanes: Sequence[Lane]) -> list[list[ReplicaReport]]:
        """What each lane's replicas last said of themselves; one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.hvals(lane.reports)
            replies = await pipeline.execute()
        return [list(_readable(rows)) for rows in replies]

    async def tiers(self, lanes: Sequence[Lane]) -> list[list[AdapterTiers]]:
        """Which adapters each lane's living replicas have; two round trips."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.hkeys(lane.reports)
            incarnations = await pipeline.execute()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for lane, names in zip(lanes, incarnations, strict=True):
                for name in names:
                    pipeline.get(lane.tiers_prefix + name.decode())
            told = iter(await pipeline.execute())
        return [list(_tiers(islice(told, len(names)))) for names in incarnations]

    async def explanation(self, deployment_id: str) -> tuple[Explanation | None, float]:
        """The scaler's latest decision, and the time of Redis' clock, which it goes by. None: it
        has not looked, or is of another release."""
        raw, (seconds, microseconds) = await asyncio.gather(
            cast(Any, self._redis.hget(DECISIONS, deployment_id)), self._redis.time()
        )
        try:
            known = decode_explanation(raw) if raw else None
        except msgspec.DecodeError:
            known = None
        return known, seconds + microseconds / 1e6

    async def ask_comparison(self, deployment_id: str) -> None:
        """Have other laws compared on its traffic; what was found before is forgotten."""
        await self._redis.delete(COMPARISONS + deployment_id)
        await cast(Any, self._redis.rpush(COMPARE, deployment_id))

    async def ask_import(self, import_id: str) -> None:
        """Have an adapter fetched, soon; without Redis a minute later."""
        await self._ask(IMPORTS, import_id)

    async def ask_scoring(self, evaluation: str) -> None:
        """Have an evaluation's answers scored, soon."""
        await self._ask(SCORINGS, evaluation)

    async def ask_kill(self, replica: str) -> None:
        """Have a replica killed, soon."""
        await self._ask(KILLS, replica)

    async def targets(self, since: float) -> list[Target]:
        """Processes that serve metrics and said so since then (Unix seconds); the others are
        forgotten."""
        rows: Any = await cast(Any, self._redis.hgetall(TARGETS))
        known = {name: decode_target(raw) for name, raw in rows.items()}
        gone = [name for name, target in known.items() if target.at < since]
        if gone:
            await cast(Any, self._redis.hdel(TARGETS, *gone))
        return [target for target in known.values() if target.at >= since]

    async def about(self) -> tuple[str, dict[str, Any]]:
        """Which scaler leads ("": none), and what the server says of itself."""
        leader: Any = await self._redis.get(LEADER)
        return (leader or b"").decode(), await self._redis.info()

    async def logs(self, lane: Lane, after: str, most: int) -> list[LogLine]:
        """Lines that its replicas logged after the one of the id `after`, oldest first; of "" the
        latest `most`."""
        if after:
            rows: Any = await self._redis.xrange(lane.logs, f"({after}", count=most)
        else:
            rows = await self._redis.xrevrange(lane.logs, count=most)
            rows = rows[::-1]
        return [
            LogLine(entry.decode(), fields[b"r"].decode(), fields[b"l"].decode(errors="replace"))
            for entry, fields in rows
        ]

    async def _ask(self, key: str, what: str) -> None:
        with suppress(*Unavailable):
            await cast(Any, self._redis.rpush(key, what))
            await cast(Any, self._redis.publish(WAKE_CHANNEL, what))

    async def comparison(self, deployment_id: str) -> Comparison | None:
        """None: it is not done, or nobody has asked for it within the hour."""
        raw: Any = await self._redis.get(COMPARISONS + deployment_id)
        try:
            return decode_comparison(raw) if raw else None
        except msgspec.DecodeError:
            return None

    async def tokens_per_s(self, lane: Lane) -> float:
        """The lane's latest measured throughput; 0 when no replica has run."""
        return sum(report.tokens_per_s for report in (await self.reports([lane]))[0])

    async def set_gate(self, lane: Lane, shut_reason: str | None) -> None:
        """Shut or open the lane at once. The scaler does it by the deployment's status anyway: so
        nothing is lost, only later, while Redis is away."""
        state = "shut" if shut_reason else "open"
        with suppress(*Unavailable):
            await self._scripts.call("gate", keys=[lane.gate], args=[state, shut_reason or "", ""])
            await self.wake_scaler(lane.name)

    async def wake_scaler(self, why: str) -> None:
        """A hint: the scaler looks once a second by itself."""
        with suppress(*Unavailable):
            await cast(Any, self._redis.publish(WAKE_CHANNEL, why))

    async def aclose(self) -> None:
        await self._redis.aclose()


def _readable(rows: Sequence[bytes]) -> Iterator[ReplicaReport]:
    """Without those of other releases."""
    for row in rows:
        with suppress(msgspec.DecodeError):
            yield decode_report(row)


def _tiers(rows: Iterator[bytes | None]) -> Iterator[AdapterTiers]:
    for row in rows:
        with suppress(msgspec.DecodeError):
            if row is not None:
                yield decode_tiers(row)


def _page(entries: Any, most: int) -> Page:
    last = entries[-1][0].decode() if entries else None
    return Page(list(steps_of(entries)), last, len(entries) == most)
