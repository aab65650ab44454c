"""A replica whose engine computes nothing: `python -m benchmarks.delivery.fake_replica`.

The worker's loop, its broker and its commits are the real ones.
"""

import argparse
import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from gpu_worker.engine.engine import StepStats
from gpu_worker.engine.request import Finish, Output, Request, TokenLogprobs
from gpu_worker.metrics import ReplicaMetrics
from gpu_worker.split import Split
from gpu_worker.worker import Worker
from loraplex import tracing
from loraplex.broker.connection import connect
from loraplex.broker.worker import WorkerBroker
from loraplex.keys import Lane
from loraplex.metrics.served import serving_metrics
from loraplex.worker_settings import WorkerSettings

FIRST_TOKEN = 1000  # any ids of the vocabulary
TOKENS = 4000
SETTLE_S = 0.5  # without a new request, before the first token


def token(position: int) -> int:
    """What every request is answered with."""
    return FIRST_TOKEN + position * 7 % TOKENS


class FakeEngine:
    """One token of each request a step, at once or `step_s` apart. Remembers when.

    It begins when all requests are there: so all streams run together.
    """

    def __init__(self, step_s: float, most: int) -> None:
        self._step_s = step_s
        self._most = most
        self._next = 0.0
        self._added = 0.0
        self._requests: dict[str, Request] = {}
        self._positions: dict[str, int] = {}
        self.times: dict[str, list[float]] = {}  # request → when each token was there
        self.adapters = type("Adapters", (), {"resident": []})
        self.kv_blocks = (0, 1)
        self.stats = StepStats()
        self.steps = 0
        self.quiet, self.preparing = True, False

    @property
    def slots(self) -> int:
        return self._most

    @property
    def room(self) -> int:
        return self._most - self.load

    @property
    def load(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        self._requests[request.id] = request
        self._positions[request.id] = len(request.produced)
        self._added = time.monotonic()
        self.times[request.id] = []

    def cancel(self, name: str) -> Output | None:
        request = self._requests.pop(name, None)
        return Output(name, self._positions[name], []) if request else None

    def step(self, only: str | None = None) -> list[Output]:
        self.steps += bool(self._requests)
        if self._requests and time.monotonic() - self._added < SETTLE_S:
            time.sleep(0.01)
            return []
        if self._requests and self._step_s:
            time.sleep(max(0.0, self._next - time.perf_counter()))
            self._next = max(self._next + self._step_s, time.perf_counter())
        outputs, now = [], time.time()
        for name, request in list(self._requests.items()):
            position = self._positions[name]
            self._positions[name] = position + 1
            self.times[name].append(now)
            ended = position + 1 == request.sampling.max_tokens
            known = None if request.sampling.logprobs is None else [TokenLogprobs(-0.5, [])]
            finish: Finish | None = "length" if ended else None
            outputs.append(Output(name, position, [token(position)], finish, known))
            if ended:
                del self._requests[name]
        self.stats = StepStats(len(outputs), len(outputs), (None,))
        return outputs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lane", required=True, type=Lane.parse)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--most", type=int, required=True, help="requests in one batch")
    parser.add_argument("--name", required=True)
    parser.add_argument("--times", type=Path, required=True, help="JSON: when each token was there")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    engine: Any = FakeEngine(options.step_s, options.most)
    name = options.name
    client: Any = connect(os.environ["LORAPLEX_REDIS_URL"])
    broker = WorkerBroker(client, options.lane, f"{name}:0", lease_s=60)
    split, metrics = Split(None, time.time()), ReplicaMetrics()
    worker = Worker(engine, broker, name, stop, max_deliveries=5, split=split, metrics=metrics)
    calls, call = itertools.count(), client.execute_command

    def counted(*command: Any, **how: Any) -> Any:
        next(calls)
        return call(*command, **how)

    client.execute_command = counted
    settings = WorkerSettings()
    end_tracing = tracing.configure("replica", settings)
    of = {"replica": name, "deployment": options.lane.deployment_id}
    with serving_metrics(metrics.registry(), settings, client, "replica", **of):
        worker.run()
    end_tracing()
    noted = {"times": engine.times, "steps": engine.steps, "calls": next(calls)}
    options.times.write_text(json.dumps(noted))


if __name__ == "__main__":
    main()
