"""The scaler's side: lead, observe lanes, open and shut gates, order, answer stranded jobs."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import redis

from loraplex.broker.cancellation import arguments, request_of
from loraplex.broker.interface import Deposed, SeenLane, SeenReplica, StoredUsage, UsagePage
from loraplex.broker.limiter import settling
from loraplex.broker.script_calls import call_each
from loraplex.broker.scripts import source
from loraplex.broker.stream_ids import in_order
from loraplex.keys import (
    APIS,
    COMPARE,
    COMPARISONS,
    DECISIONS,
    EPOCH,
    IMPORTS,
    KILLS,
    LEADER,
    LEARNED,
    PUBLISHED,
    SCORINGS,
    WAKE_CHANNEL,
    Lane,
    reply_channel,
)
from loraplex.messages import (
    NO_ENTRY,
    Finish,
    ReplicaReport,
    Step,
    TokenEvent,
    Traffic,
    Usage,
    decode_job,
    decode_report,
    decode_shown,
    decode_traffic,
    decode_usage,
    encode,
)

COMPARISON_KEPT_S = 3600
FORGOTTEN_AFTER_S = 3600

log = logging.getLogger(__name__)


class ScalerBroker:
    """One per scaler process; `scaler_id` contends for the leadership."""

    def __init__(self, client: "redis.Redis", scaler_id: str) -> None:
        self._redis = client
        self.scaler_id = scaler_id
        self.epoch = 0  # in whose name it acts
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        names = (
            "lead",
            "fence",
            "observe",
            "gate",
            "close_idle",
            "answer",
            "order",
            "cancel",
            "trim",
            "forget",
            "settle",
        )
        (
            self._lead,
            self._fence,
            self._observe,
            self._gate,
            self._close_idle,
            self._answer,
            self._order,
            self._cancel,
            self._trim,
            self._forget,
            self._settle,
        ) = (client.register_script(source(name)) for name in names)

    def lead(self, lease_s: float, least_epoch: int = 0) -> int | None:
        """Take or renew the leadership: its epoch, over `least_epoch`. None: another one leads."""
        args: list[str | int] = [self.scaler_id, int(lease_s * 1000), least_epoch]
        epoch = int(cast(int, self._lead(keys=[LEADER, EPOCH], args=args)))
        return epoch or None

    def fence(self, lanes: Sequence[Lane]) -> None:
        """Make lanes refuse what earlier leaders do late."""
        gates = [([lane.gate], [self.epoch]) for lane in lanes]
        if any(int(reply) < 0 for reply in call_each(self._redis, self._fence, gates)):
            raise Deposed(self.epoch)

    def time(self) -> float:
        """Redis' clock, which is everybody's: Unix seconds."""
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6

    def resign(self) -> None:
        """Let a standby take over at once."""
        if self._redis.get(LEADER) == self.scaler_id.encode():
            self._redis.delete(LEADER)

    def wait_for_wake(self, seconds: float) -> None:
        """Sleep until something happens on any lane, at most `seconds`."""
        if not self._pubsub.subscribed:
            self._pubsub.subscribe(WAKE_CHANNEL)
        self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)

    def forget_wakes(self) -> None:
        """A burst of wake-ups is one look: drop those that came before it."""
        while self._pubsub.subscribed and self._pubsub.get_message(timeout=0) is not None:
            pass

    def observe(self, lanes: Sequence[Lane]) -> dict[Lane, SeenLane]:
        """One round trip for all of them."""
        asked = [
            ([lane.jobs, lane.reports, lane.gate, lane.usage], [lane.lease_prefix])
            for lane in lanes
        ]
        replies = call_each(self._redis, self._observe, asked)
        return {lane: self._seen(lane, reply) for lane, reply in zip(lanes, replies, strict=True)}

    def _seen(self, lane: Lane, reply: Any) -> SeenLane:
        now_ms, jobs, taken, oldest, rows, gate, usage = reply
        state, reason, arrived = (each.decode() if each else "" for each in gate)
        wait_ms = int(now_ms) - int(oldest.split(b"-")[0]) if oldest else 0
        replicas = [
            SeenReplica(rows[i].decode(), bool(rows[i + 1]), rows[i + 1] == b"drain", report)
            for i in range(0, len(rows), 3)
            if (report := _report(lane, rows[i + 2])) is not None
        ]
        return SeenLane(
            lane=lane,
            at=int(now_ms) / 1000,
            waiting=max(0, int(jobs) - int(taken)),
            running=int(taken),
            oldest_wait_s=max(0, wait_ms) / 1000,
            replicas=replicas,
            arrived=int(arrived or 0),
            gate=state,
            gate_reason=reason,
            usage=int(usage),
        )

    def close_idle(self, lane: Lane) -> bool:
        """Close the gate for zero replicas. False: there is work, keep them. Raises Deposed."""
        return self._fenced(self._close_idle(keys=[lane.jobs, lane.gate], args=[self.epoch]))

    def shut(self, lane: Lane, reason: str) -> None:
        """Take no more requests; `reason` is what their senders read. Raises Deposed."""
        self._fenced(self._gate(keys=[lane.gate], args=["shut", reason, self.epoch]))

    def open(self, lane: Lane) -> None:
        """Take requests again, if the gate was shut. Raises Deposed."""
        self._fenced(self._gate(keys=_keys(lane), args=["open", "", self.epoch]))

    def order(self, lane: Lane, incarnation: str, *, drain: bool) -> bool:
        """Tell a replica to drain, or to serve after all. False: it is dead. Raises Deposed."""
        order = "drain" if drain else "serve"
        keys = [lane.lease_prefix + incarnation, lane.gate]
        return self._fenced(self._order(keys=keys, args=[order, self.epoch]))

    def _fenced(self, reply: Any) -> bool:
        if int(reply) < 0:
            raise Deposed(self.epoch)
        return bool(reply)

    def learned(self) -> dict[str, bytes]:
        """What was kept of earlier looks, by deployment."""
        rows: Any = self._redis.hgetall(LEARNED)
        return {name.decode(): value for name, value in rows.items()}

    def keep(self, learned: dict[str, bytes], decisions: dict[str, bytes]) -> None:
        """Store what has changed of both; one round trip."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for key, values in ((LEARNED, learned), (DECISIONS, decisions)):
                if values:
                    pipeline.hset(key, mapping=cast(Any, values))
            pipeline.execute()

    def forget(self, deployment: str) -> None:
        """What was kept of a deleted deployment."""
        for key in (LEARNED, DECISIONS):
            self._redis.hdel(key, deployment)

    def decision(self, deployment: str) -> bytes | None:
        return cast(bytes | None, self._redis.hget(DECISIONS, deployment))

    def asked_comparisons(self) -> list[str]:
        """Deployments whose laws somebody wants compared; they are told once."""
        return self._asked(COMPARE)

    def asked_imports(self) -> list[str]:
        """Imports that were asked for; they are told once."""
        return self._asked(IMPORTS)

    def asked_scorings(self) -> list[str]:
        """Evaluations that are to be scored, the same way."""
        return self._asked(SCORINGS)

    def asked_kills(self) -> list[str]:
        """Replicas, the same way."""
        return self._asked(KILLS)

    def _asked(self, key: str) -> list[str]:
        names = cast(list[bytes] | None, self._redis.lpop(key, 10))
        return [name.decode() for name in names or ()]

    def traffic(self, lane: Lane) -> list[Traffic]:
        """What was recorded of a lane, oldest first."""
        entries: Any = self._redis.xrange(lane.traffic)
        return [decode_traffic(fields[b"t"]) for _, fields in entries]

    def keep_comparison(self, deployment: str, comparison: bytes) -> None:
        self._redis.set(COMPARISONS + deployment, comparison, ex=COMPARISON_KEPT_S)

    def published(self) -> int:
        return int(cast(bytes | None, self._redis.get(PUBLISHED)) or 0)

    def set_published(self, event: int) -> None:
        self._redis.set(PUBLISHED, event)

    def answer_stranded(self, lane: Lane, code: str, error: str) -> int:
        """Answer every job that no living replica has with an error. Returns how many."""
        answered = 0
        entries: Any = self._redis.xrange(lane.jobs)
        for entry, fields in entries:
            try:
                job = decode_job(fields[b"j"])
            except msgspec.DecodeError as foreign:
                log.warning("job %s is of another release, not answered: %s", entry, foreign)
                continue
            # The position is beyond all tokens: whatever was journalled before is still delivered.
            event = TokenEvent(job.request, job.sampling.max_tokens, [], "error", error, code)
            done = self._answer(
                keys=[lane.jobs, lane.journal, lane.deaths, lane.gate, lane.usage],
                args=[
                    entry,
                    lane.lease_prefix,
                    encode(Step(self.scaler_id, [event], NO_ENTRY)),
                    reply_channel(job.reply_to),
                    self.epoch,
                    code,
                ],
            )
            answered += self._fenced(done)
        return answered

    def usage(self, lane: Lane, most: int) -> UsagePage:
        """What was recorded first and not dropped."""
        entries: Any = self._redis.xrange(lane.usage, count=most)
        found = [(fields[b"e"].decode(), _usage(entry, fields)) for entry, fields in entries]
        return UsagePage(
            [entry.decode() for entry, _ in entries],
            [StoredUsage(job, usage) for job, usage in found if usage is not None],
        )

    def drop_usage(self, lane: Lane, entries: Sequence[str]) -> None:
        if entries:
            self._redis.xdel(lane.usage, *entries)

    def settle(self, records: Sequence[StoredUsage]) -> None:
        """With the limiter, where something was reserved; one round trip."""
        by_tenant: dict[str, list[tuple[str, int | None]]] = {}
        for usage in (each.usage for each in records if each.usage.account.reservation):
            settled = (usage.account.reservation, usage.prompt + usage.output)
            by_tenant.setdefault(usage.tenant, []).append(settled)
        asked = [settling(tenant, took) for tenant, took in by_tenant.items()]
        call_each(self._redis, self._settle, asked)

    def silent_apis(self, seconds: float) -> dict[str, float]:
        """API processes that have said nothing for so long: for how many seconds."""
        now_s, now_us = self._redis.time()
        now = now_s * 1000 + now_us // 1000
        rows: Any = self._redis.zrangebyscore(APIS, 0, now - seconds * 1000, withscores=True)
        return {name.decode(): (now - score) / 1000 for name, score in rows}

    def forget_api(self, api_id: str) -> None:
        self._redis.zrem(APIS, api_id)

    def leave_for(self, lane: Lane, api_id: str, silent_s: float) -> tuple[int, int]:
        """A silent API process waits no longer for what its clients may be away from for so long.

        Returns how many requests were stopped, and for how many it waits still.
        """
        stopped = kept = 0
        entries: Any = self._redis.xrange(lane.jobs)
        answers = {fields[b"r"].decode() for _, fields in entries if b"r" in fields}
        for request in {request_of(answer) for answer in answers}:
            row: Any = self._redis.hgetall(lane.request_prefix + request)
            waiters = [k.decode()[2:] for k in row if k.startswith(f"w:{api_id}/".encode())]
            if waiters and decode_shown(row[b"shown"]).grace_s > silent_s:
                kept += 1
                continue
            for waiter in waiters:
                ids = row[b"entries"].decode().split()
                keys, args = arguments(lane, request, ids, waiter, unserved=True)
                stopped += self._cancel(keys=keys, args=args) == b"STOPPED"
        return stopped, kept

    def trim(self, lanes: Sequence[Lane], retention_s: float) -> None:
        """Drop what journals need no longer; replicas do so too, but only while they work."""
        kept_ms = int(retention_s * 1000)
        call_each(
            self._redis, self._trim, [([lane.jobs, lane.journal], [kept_ms]) for lane in lanes]
        )

    def forget_replica(self, lane: Lane, incarnation: str) -> None:
        self._redis.hdel(lane.reports, incarnation)

    def forget_lane(self, lane: Lane) -> None:
        """Remove what nobody uses any more, an hour from the first call. Raises Deposed."""
        self._fenced(self._forget(keys=_keys(lane), args=[self.epoch, FORGOTTEN_AFTER_S]))


def _keys(lane: Lane) -> list[str]:
    """All that a lane has, its gate first, but for leases and requests, which expire."""
    kept = [lane.jobs, lane.journal, lane.reports, lane.batches]
    return [lane.gate, *kept, lane.deaths, lane.dead_letters, lane.traffic, lane.usage, lane.logs]


def _usage(entry: bytes, fields: dict[bytes, bytes]) -> Usage | None:
    """A replica's record, or that of a job which no replica ended. None: of another release."""
    try:
        if b"u" in fields:
            return decode_usage(fields[b"u"])
        job = decode_job(fields[b"j"])
    except msgspec.DecodeError as foreign:
        log.error("usage of job %s can't be read and is lost: %s", fields[b"e"], foreign)
        return None
    arrived_ms, ended_ms = in_order(fields[b"e"].decode())[0], in_order(entry.decode())[0]
    waited_s = (ended_ms - arrived_ms) / 1000
    return Usage(
        answer=job.request,
        tenant=job.tenant,
        account=job.account,
        arrived_at=arrived_ms / 1000,
        queue_s=waited_s,
        duration_s=waited_s,
        status=cast(Finish, fields[b"status"].decode()),
        error=fields[b"error"].decode(),
    )


def _report(lane: Lane, raw: bytes) -> ReplicaReport | None:
    """None: it is of another release."""
    try:
        return decode_report(raw)
    except msgspec.DecodeError as foreign:
        log.warning("%s: a replica's report can't be read: %s", lane.name, foreign)
        return None
