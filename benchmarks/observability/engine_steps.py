"""Decode steps of a real replica's loop: a real engine, a real lane."""

import asyncio
import secrets
import statistics
import threading
import time
from typing import Any

from benchmarks.workload import small_model
from gpu_worker.engine.config import EngineConfig
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Output
from gpu_worker.metrics import ReplicaMetrics, Tally
from gpu_worker.split import Split
from gpu_worker.vitals import machine_of
from gpu_worker.worker import Worker
from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import connect, connect_async
from loraplex.broker.worker import WorkerBroker
from loraplex.keys import Lane
from loraplex.messages import Job, Sampling, Shown
from loraplex.totals import Histogram

STREAMS = 8
_FIRST = 8  # steps that aren't counted: prompts


class Nowhere(Histogram):
    def add(self, value: float) -> None: ...


class Silent(Tally):
    """Counts nothing that isn't needed."""

    def __init__(self) -> None:
        super().__init__()
        self.inter_token_s = Nowhere((), [0])

    def step(self, seconds: float, sequences: int, adapters: int) -> None: ...

    def adapter_loaded(self, began: float, ended: float, can_run: bool) -> None: ...


class EngineSteps:
    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._engine = Engine(small_model(), EngineConfig(), lambda _: small_model())

    def seconds(self, tokens: int, *, observed: bool) -> float:
        """Of a step, median: `STREAMS` streams of so many tokens. One of a hundred requests is
        traced, as by the sampling: in every hundredth of the jobs."""
        lane = Lane("model", f"steps-{secrets.token_hex(4)}")
        asyncio.run(self._enqueue(lane, tokens, traced=observed))
        stop = threading.Event()
        broker = WorkerBroker(connect(self._url), lane, "steps:0", lease_s=60)
        metrics = ReplicaMetrics(
            self._engine, machine_of(self._engine.device) if observed else None
        )
        if not observed:
            metrics.tally = Silent()
        split = Split(None, time.time())
        worker = Worker(
            self._engine, broker, "steps", stop, max_deliveries=5, split=split, metrics=metrics
        )
        ends: list[float] = []
        step = self._engine.step

        def timed(only: str | None = None) -> list[Output]:
            stop.set()  # it leaves when these jobs have ended
            outputs = step(only)
            if outputs:
                ends.append(time.perf_counter())
            return outputs

        engine: Any = self._engine
        engine.step = timed
        try:
            worker.run()
        finally:
            engine.step = step
        gaps = [b - a for a, b in zip(ends[_FIRST:], ends[_FIRST + 1 :], strict=False)]
        return statistics.median(gaps)

    async def _enqueue(self, lane: Lane, tokens: int, *, traced: bool) -> None:
        redis = connect_async(self._url)
        broker = ApiBroker(redis, "benchmark")
        deadline = time.time() + 600
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01" if traced else ""
        for number in range(STREAMS):
            name = f"{lane.deployment_id}-{number}"
            sampling = Sampling(max_tokens=tokens, seed=number, ignore_eos=True)
            mine = trace if traced and number == 0 else ""  # more than one of a hundred
            job = Job(
                name,
                broker.api_id,
                "dev",
                None,
                list(range(10, 26)),
                sampling,
                deadline,
                trace=mine,
            )
            shown = Shown(name, "dev", "completion", "m", 0, deadline, 1, 1, 1, 16)
            await broker.enqueue(lane, [job], shown, f"{broker.api_id}/0", max_backlog=99, keep_s=9)
        await broker.aclose()
