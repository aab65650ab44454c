"""The scaler's side: lead, observe lanes, open and shut gates, order, answer stranded jobs."""

import logging
from typing import Any

import msgspec
import redis

from loraplex.broker.cancellation import arguments, request_of
from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.broker.scripts import source
from loraplex.keys import APIS, LEADER, WAKE_CHANNEL, Lane, reply_channel
from loraplex.messages import (
    NO_ENTRY,
    Step,
    TokenEvent,
    decode_job,
    decode_report,
    decode_shown,
    encode,
)

log = logging.getLogger(__name__)


class ScalerBroker:
    """One per scaler process; `scaler_id` contends for the leadership."""

    def __init__(self, client: "redis.Redis", scaler_id: str) -> None:
        self._redis = client
        self.scaler_id = scaler_id
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        names = ("lead", "observe", "gate", "close_idle", "answer", "order", "cancel")
        (
            self._lead,
            self._observe,
            self._gate,
            self._close_idle,
            self._answer,
            self._order,
            self._cancel,
        ) = (client.register_script(source(name)) for name in names)

    def lead(self, lease_s: float) -> bool:
        """Take or renew the leadership. False: another scaler leads."""
        return bool(self._lead(keys=[LEADER], args=[self.scaler_id, int(lease_s * 1000)]))

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

    def observe(self, lane: Lane) -> SeenLane:
        reply: Any = self._observe(keys=[lane.jobs, lane.reports], args=[lane.lease_prefix])
        now_ms, jobs, taken, oldest, rows = reply
        wait_ms = int(now_ms) - int(oldest.split(b"-")[0]) if oldest else 0
        replicas = [
            SeenReplica(rows[i].decode(), bool(rows[i + 1]), rows[i + 1] == b"drain", report)
            for i in range(0, len(rows), 3)
            for report in [decode_report(rows[i + 2])]
        ]
        return SeenLane(
            at=int(now_ms) / 1000,
            waiting=max(0, int(jobs) - int(taken)),
            running=int(taken),
            oldest_wait_s=max(0, wait_ms) / 1000,
            replicas=replicas,
        )

    def close_idle(self, lane: Lane) -> bool:
        """Close the gate for zero replicas. False: there is work, keep them."""
        return bool(self._close_idle(keys=[lane.jobs, lane.gate]))

    def shut(self, lane: Lane, reason: str) -> None:
        """Take no more requests; `reason` is what their senders read."""
        self._gate(keys=[lane.gate], args=["shut", reason])

    def open(self, lane: Lane) -> None:
        """Take requests again, if the gate was shut."""
        self._gate(keys=[lane.gate], args=["open", ""])

    def order(self, lane: Lane, incarnation: str, *, drain: bool) -> bool:
        """Tell a replica to drain, or to serve after all. False: it is not alive."""
        order = "drain" if drain else "serve"
        return bool(self._order(keys=[lane.lease_prefix + incarnation], args=[order]))

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
            answered += self._answer(
                keys=[lane.jobs, lane.journal, lane.deaths],
                args=[
                    entry,
                    lane.lease_prefix,
                    encode(Step(self.scaler_id, [event], NO_ENTRY)),
                    reply_channel(job.reply_to),
                ],
            )
        return answered

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

    def trim(self, lane: Lane, retention_s: float) -> None:
        """Drop what the journal needs no longer; replicas do so too, but only while they work."""
        now_s, now_us = self._redis.time()
        oldest = int((now_s - retention_s) * 1000) + now_us // 1000
        first: Any = self._redis.xrange(lane.jobs, count=1)
        if first:
            oldest = min(oldest, int(first[0][0].split(b"-")[0]))
        self._redis.xtrim(lane.journal, minid=f"{max(0, oldest)}-0", approximate=False)

    def forget_replica(self, lane: Lane, incarnation: str) -> None:
        self._redis.hdel(lane.reports, incarnation)

    def forget_lane(self, lane: Lane) -> None:
        """Remove what a deleted deployment leaves behind, an hour from the first call."""
        for key in (
            *(lane.jobs, lane.journal, lane.reports, lane.gate),
            *(lane.batches, lane.deaths, lane.dead_letters),
        ):
            self._redis.expire(key, 3600, nx=True)
