"""What a replica's step costs Redis: by itself, for each API process that waits, for each token.

The broker's own commits, as fast as they go, to real subscribers that throw away what they get.
Valkey's CPU time is what its process has used, so that it doesn't matter who shares the machine.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import redis

from benchmarks.capacity.cpu import cpu_s
from benchmarks.capacity.fit import parts
from benchmarks.delivery.processes import until
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.keys import Lane, reply_channel
from loraplex.messages import ReplicaReport, TokenEvent

# Streams in a step, API processes that they belong to.
POINTS = ((1, 1), (8, 1), (32, 1), (128, 1), (32, 4), (32, 16), (128, 4), (128, 16), (128, 64))
_LARGE = (128, 1)  # whose tokens take what they take in a busy journal
_LANE = Lane("org/model", "dep-capacity")


@dataclass(frozen=True, slots=True)
class StepCost:
    """CPU seconds, and bytes in and out of Redis: a + b · API processes + c · tokens."""

    seconds: tuple[float, float, float]
    received: tuple[float, float, float]
    sent: tuple[float, float, float]
    stored_token: float  # bytes that the journal holds for one, until it is trimmed
    worst: float  # share that the fit is off at its worst point


def measure(client: redis.Redis, server: int, url: str, steps: int) -> StepCost:
    process, points = psutil.Process(server), []
    for streams, apis in POINTS:
        names = [f"api-{number}" for number in range(apis)]
        with subscribed(client, url, names):
            points.append(_point(client, process, streams, names, steps))
    shapes = np.array([[1, apis, streams] for streams, apis in POINTS], float)
    taken = np.array(points)
    (seconds, off), (received, _), (sent, _) = (parts(shapes, each) for each in taken[:, :3].T)
    stored = float(taken[POINTS.index(_LARGE), 3])
    return StepCost(seconds, received, sent, stored, off)


def _point(
    client: redis.Redis,
    process: psutil.Process,
    streams: int,
    apis: Sequence[str],
    steps: int,
) -> list[float]:
    """Of a step: CPU seconds, bytes received, bytes sent; of a token: bytes that stay."""
    client.flushdb()
    report = ReplicaReport("rep", "ready", 0.0, running=streams, capacity=streams)
    broker = WorkerBroker(client, _LANE, "rep:0", lease_s=3600)
    broker.register(report)
    requests = [f"{number:028x}" for number in range(streams)]

    def step(position: int) -> None:
        result = StepResult()
        for number, request in enumerate(requests):
            event = TokenEvent(request, position, [1000 + position % 4000])
            result.add(apis[number % len(apis)], event, "0-0")
        broker.commit(result, report)

    step(0)
    before, spent = client.info(), cpu_s(process)
    for position in range(1, steps + 1):
        step(position)
    spent, after = cpu_s(process) - spent, client.info()
    grown = {
        name: after[name] - before[name]
        for name in ("total_net_input_bytes", "total_net_output_bytes", "used_memory")
    }
    return [
        spent / steps,
        grown["total_net_input_bytes"] / steps,
        grown["total_net_output_bytes"] / steps,
        grown["used_memory"] / steps / streams,
    ]


@contextmanager
def subscribed(client: redis.Redis, url: str, apis: Sequence[str]) -> Iterator[None]:
    """A process that reads what each of them would get."""
    channels = [reply_channel(name) for name in apis]
    command = [sys.executable, "-m", "benchmarks.capacity.subscribers", url, *channels]
    with subprocess.Popen(command) as reading:
        until(lambda: all(count == 1 for _, count in client.pubsub_numsub(*channels)))
        try:
            yield
        finally:
            reading.kill()
