"""What each job in this replica's hands took: for its usage record, and for the lane's recorded
traffic. Times begin where Redis' clock has the job arrive, and go on by this machine's own."""

import time
from collections import deque
from dataclasses import dataclass

from gpu_worker.metrics import Tally
from gpu_worker.traces import Instants, JobTraces
from loraplex.broker.interface import Journalled, TakenJob
from loraplex.broker.stream_ids import in_order
from loraplex.messages import TokenEvent, Usage

Ended = tuple[float, int, int, float]  # see loraplex.messages.Traffic


@dataclass(slots=True)
class _Reading:
    taken: TakenJob
    arrived_at: float  # Unix seconds, Redis' clock
    taken_at: float  # monotonic
    queue_s: float
    first_token_s: float | None = None
    cached: int = 0
    token_at: float = 0.0  # monotonic, of the latest one; 0: none here yet
    first_at: float = 0.0  # the same of the first one here
    admitted_at: float = 0.0  # when it first ran here


class Meter:
    def __init__(self, tally: Tally, traces: JobTraces | None = None) -> None:
        self._tally = tally
        self._traces = traces
        self._readings: dict[str, _Reading] = {}
        self._ended: deque[Ended] = deque()  # another thread takes them

    def begin(self, taken: TakenJob, earlier: Journalled | None = None) -> None:
        """`earlier`: what others have made of it. When the first of them took it isn't known, only
        that its first token came after that."""
        arrived_at = in_order(taken.entry)[0] / 1000
        first_token_s = None
        queue_s = taken.queue_s
        if earlier is not None and earlier.first_at is not None:
            first_token_s = max(0.0, earlier.first_at - arrived_at)
            queue_s = min(queue_s, first_token_s)
        self._readings[taken.job.request] = _Reading(
            taken, arrived_at, time.monotonic(), queue_s, first_token_s
        )

    def produced(self, event: TokenEvent) -> None:
        if not event.tokens:
            return
        reading, tally, now = self._readings[event.request], self._tally, time.monotonic()
        tally.generated += len(event.tokens)
        if not reading.first_at:
            reading.first_at = now
        else:
            tally.inter_token_s.add(now - reading.token_at)
        reading.token_at = now
        if reading.first_token_s is None:
            reading.first_token_s = self._since_arrival(reading)
            reading.cached = min(event.cached, len(reading.taken.job.prompt))
            tally.prompt += len(reading.taken.job.prompt)
            tally.cached += reading.cached

    def end(self, event: TokenEvent, wanted: int | None = None) -> Usage:
        """The job's last event has come. `wanted`: its client wants no more than so many tokens."""
        reading = self._readings.pop(event.request)
        self._tally.requests += 1
        job, output = reading.taken.job, event.position + len(event.tokens)
        held_s = round(time.monotonic() - reading.taken_at, 3)
        self._ended.append((reading.arrived_at, len(job.prompt), output, held_s))
        status = event.finish or "stop"
        if job.sampling.pooling is not None:  # its one token is not asked for
            output = 0
        # What came to no token is not charged for its prompt.
        counts = job.account.prompt and reading.first_token_s is not None
        if wanted is not None:
            output, status = min(wanted, output), "stop"
        usage = Usage(
            answer=job.request,
            tenant=job.tenant,
            account=job.account,
            arrived_at=reading.arrived_at,
            prompt=len(job.prompt) if counts else 0,
            cached=reading.cached if counts else 0,
            output=output,
            queue_s=round(reading.queue_s, 4),
            first_token_s=reading.first_token_s and round(reading.first_token_s, 4),
            duration_s=round(self._since_arrival(reading), 4),
            status=status,
            error=event.error_code or "",
        )
        if job.trace and self._traces is not None:
            at = Instants(reading.taken_at, reading.admitted_at, reading.first_at, time.monotonic())
            self._traces.ended(job, usage, at, resumed=reading.taken.reclaimed)
        return usage

    def admitted(self, request: str, at: float) -> None:
        """It has run; monotonic seconds."""
        self._readings[request].admitted_at = at

    def pop_ended(self) -> list[Ended]:
        """Those since the last call. Safe to call from another thread."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    @staticmethod
    def _since_arrival(reading: _Reading) -> float:
        return reading.taken.queue_s + time.monotonic() - reading.taken_at
