"""A replica's side: register, take jobs, commit steps, wait, leave."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

from loraplex.broker.interface import Fenced, Journalled, Orders, TakenJob
from loraplex.broker.scripts import source
from loraplex.broker.steps import steps_of
from loraplex.broker.stream_ids import before, in_order
from loraplex.keys import WAKE_CHANNEL, Lane, reply_channel
from loraplex.messages import (
    NO_ENTRY,
    PROTOCOL,
    ReplicaReport,
    Step,
    TokenEvent,
    Traffic,
    decode_cancel,
    decode_job,
    encode,
)

log = logging.getLogger(__name__)

TRAFFIC_KEPT = 4000  # entries of a lane's recorded traffic: seconds that were not idle
_REFUSED = f"refused:{PROTOCOL}"  # owns the jobs that this release can't read


@dataclass
class StepResult:
    """What one step of the batch brought: events by waiting API process, and jobs that ended."""

    events: dict[str, list[TokenEvent]] = field(default_factory=dict)
    ended: list[tuple[str, bytes]] = field(default_factory=list)  # stream id, encoded Usage or b""
    dead: list[tuple[str, str]] = field(default_factory=list)  # stream id, error: given up

    def add(self, reply_to: str, event: TokenEvent, entry: str, usage: bytes = b"") -> None:
        self.events.setdefault(reply_to, []).append(event)
        if event.finish:
            self.ended.append((entry, usage))


LOG_KEPT = 2000  # lines of a lane's replicas, and some more
LOG_KEPT_S = 7 * 86400  # after the latest


class WorkerBroker:
    """One per incarnation: the ownership of jobs is tied to `incarnation` and its lease."""

    def __init__(
        self,
        client: "redis.Redis",
        lane: Lane,
        incarnation: str,
        lease_s: float = 5.0,
        retention_s: float = 600.0,
    ) -> None:
        self._redis = client
        self.lane = lane
        self.incarnation = incarnation
        self.lease_s = lease_s
        self._lease_ms = int(lease_s * 1000)
        self._retention_ms = int(retention_s * 1000)
        self._lease = lane.lease_prefix + incarnation
        self._control = lane.control_prefix + incarnation
        self._last_entry = "$"
        self._obeyed = 0  # control messages of the latest reply
        names = ("register", "report", "take", "commit", "refuse", "resign")
        scripts = (client.register_script(source(name)) for name in names)
        self._register, self._report, self._take, self._commit, self._refuse, self._resign = scripts

    def register(self, report: ReplicaReport) -> None:
        """Begin to own jobs."""
        self._register(
            keys=[self.lane.jobs, self._lease, self.lane.reports],
            args=[
                self._lease_ms,
                self.incarnation,
                encode(report),
                WAKE_CHANNEL,
                self.lane.name,
            ],
        )

    def report(self, report: ReplicaReport) -> None:
        """Say something without owning jobs (still loading, or failed)."""
        self._report(
            keys=[self.lane.reports],
            args=[self.incarnation, encode(report), WAKE_CHANNEL, self.lane.name],
        )

    def record(self, requests: list[tuple[float, int, int, float]]) -> None:
        """Keep what ended lately (see `Traffic`), beside what is journalled: it may be lost."""
        fields: Any = {"t": encode(Traffic(requests))}
        self._redis.xadd(self.lane.traffic, fields, maxlen=TRAFFIC_KEPT, approximate=True)

    def renew(self) -> bool:
        """Prolong the lease between commits (a long step or load). False: it was lost."""
        return bool(self._redis.pexpire(self._lease, self._lease_ms))

    def take(self, room: int) -> list[TakenJob]:
        """Up to `room` jobs, those of dead incarnations first. Raises Fenced."""
        lane, mine = self.lane, self.incarnation
        reply: Any = self._take(
            keys=[lane.jobs, self._lease, self._control, lane.batches, lane.deaths],
            args=[mine, room, lane.lease_prefix, lane.control_prefix, _REFUSED],
        )
        if reply[0] == b"FENCED":
            raise Fenced(mine)
        self._last_entry = reply[1].decode()
        taken = []
        now_ms = int(reply[2])
        for id_, raw, deliveries, deaths, reclaimed, after in reply[3]:
            entry = id_.decode()
            try:
                job = decode_job(raw)
            except msgspec.DecodeError as foreign:
                log.warning("job %s is of another release, left to others: %s", entry, foreign)
                keys = [lane.jobs, self._lease, lane.batches]
                self._refuse(keys=keys, args=[_REFUSED, entry])
                continue
            counts = (int(deliveries), int(deaths), bool(reclaimed))
            queue_s = (now_ms - in_order(entry)[0]) / 1000
            taken.append(TakenJob(entry, job, *counts, after.decode() or before(entry), queue_s))
        return taken

    def peek_adapters(self, most: int = 64) -> list[str]:
        """Of the oldest jobs on the lane, each once, in their order. Takes nothing."""
        entries: Any = self._redis.xrange(self.lane.jobs, count=most)
        adapters: dict[str, None] = {}
        for _, fields in entries:
            try:
                job = decode_job(fields[b"j"])
            except msgspec.DecodeError:  # of another release
                continue
            if job.adapter is not None:
                adapters[job.adapter] = None
        return list(adapters)

    def wait(self, seconds: float) -> None:
        """Sleep until a job is enqueued after the last `take`, at most `seconds`."""
        self._redis.xread({self.lane.jobs: self._last_entry}, count=1, block=int(seconds * 1000))

    def commit(self, result: StepResult, report: ReplicaReport, batch: str | None = None) -> Orders:
        """End a step: journal and publish its tokens, remove ended jobs, renew. Raises Fenced.

        `batch`: what the next step runs: "" all jobs, a stream id that job alone, None as before.
        """
        published = {
            api_id: encode(Step(self.incarnation, events, NO_ENTRY))
            for api_id, events in result.events.items()
        }
        entry = next(iter(published.values()), b"")
        if len(published) > 1:
            everything = [event for events in result.events.values() for event in events]
            entry = encode(Step(self.incarnation, everything, NO_ENTRY))
        else:  # its message is the journal entry
            published = dict.fromkeys(published, b"")
        lane = self.lane
        keys = [self._lease, lane.journal, lane.jobs, lane.reports, self._control]
        letters = [part for letter in result.dead for part in letter]
        reply: Any = self._commit(
            keys=[*keys, lane.batches, lane.deaths, lane.dead_letters, lane.usage],
            args=[
                *(self._lease_ms, self.incarnation, encode(report), entry, self._retention_ms),
                *("=" if batch is None else batch, self._obeyed),
                *(str(len(result.dead)), *letters),
                *(str(len(result.ended)), *(part for each in result.ended for part in each)),
                *(x for api_id, step in published.items() for x in (reply_channel(api_id), step)),
            ],
        )
        if reply[0] == b"FENCED":
            raise Fenced(self.incarnation)
        self._obeyed = len(reply) - 3
        return Orders(
            drain=reply[1] == b"drain",
            waiting=int(reply[2]),
            cancels=[decode_cancel(message) for message in reply[3:]],
        )

    def journalled(self, taken: Iterable[TakenJob]) -> dict[str, Journalled]:
        """The output so far of jobs that another incarnation began, by request."""
        after = {t.job.request: in_order(t.after) for t in taken}
        output = {request: Journalled([]) for request in after}
        if not output:
            return output
        start = "({}-{}".format(*min(after.values()))
        while True:
            entries: Any = self._redis.xrange(self.lane.journal, min=start, count=500)
            for entry, step in steps_of(entries):  # what is left out is made again
                at = in_order(entry)
                for event in step.events:
                    known = output.get(event.request)
                    if known is None or at <= after[event.request]:
                        continue  # an earlier request with the same Idempotency-Key, say
                    if event.position <= len(known.tokens):
                        known.tokens[event.position :] = event.tokens
                    if event.position == 0 and event.tokens:
                        output[event.request] = Journalled(known.tokens, at[0] / 1000)
            if len(entries) < 500:
                return output
            start = "(" + entries[-1][0].decode()

    def leave(self, report: ReplicaReport) -> None:
        """Give up the lease at once; jobs still owned are reclaimed by others."""
        self.resign(self.incarnation)
        self.report(report)

    def resign(self, incarnation: str) -> None:
        """This or an earlier incarnation owns nothing more, but did not die of its jobs."""
        lane = self.lane
        keys = [lane.jobs, lane.lease_prefix + incarnation, lane.batches]
        self._resign(keys=keys, args=[incarnation])

    def tell_tiers(self, tiers: bytes | None, seconds: float) -> bool:
        """Which adapters it has, for so long; None: as told before. False: that isn't known any
        more. Raises Unavailable."""
        key, milliseconds = self.lane.tiers_prefix + self.incarnation, int(1000 * seconds)
        if tiers is None:
            return bool(self._redis.pexpire(key, milliseconds))
        self._redis.set(key, tiers, px=milliseconds)
        return True

    def log(self, replica: str, lines: Iterable[str]) -> None:
        """Keep lines that it logged, beside those of the lane's other replicas. Raises
        Unavailable."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for line in lines:
                fields: Any = {"r": replica, "l": line}
                pipeline.xadd(self.lane.logs, fields, maxlen=LOG_KEPT, approximate=True)
            pipeline.expire(self.lane.logs, LOG_KEPT_S)
            pipeline.execute()
