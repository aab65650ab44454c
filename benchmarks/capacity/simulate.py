"""A fleet of cells: how late tokens are when every Redis and every API process has a queue.

Replicas step at their own phases, a step now and then longer; each commit waits for its Redis, each
message for its API process, both of which do one thing at a time, in order, for as long as was
measured. Requests come at random among them. Replicas don't wait for their commits here, which real
ones do: at a server that is too busy the simulation is worse than what happens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity.api_cost import ApiCost
from benchmarks.capacity.cell import Cell, Work
from benchmarks.capacity.redis_cost import StepCost

JITTER = 0.1  # of a step, standard deviation
WARM_S = 1.0

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lateness:
    """From a step's end to its tokens' being written to their clients, ms."""

    p50: float
    p99: float
    worst: float
    steps: int


def served(arrivals: Times, services: Times) -> Times:
    """When each leaves a server that does one at a time, in order: Lindley's recursion as a running
    maximum. `arrivals` ascend."""
    done = np.cumsum(services)
    return done + np.maximum.accumulate(arrivals - (done - services))


def lateness(
    found: Cell, work: Work, redis: StepCost, api: ApiCost, cells: int, seconds: float
) -> Lateness:
    late = [
        _cell(found, work, redis, api, seconds, np.random.default_rng(number))
        for number in range(cells)
    ]
    all_ = np.concatenate(late) * 1000
    p50, p99 = np.percentile(all_, [50, 99])
    return Lateness(float(p50), float(p99), float(all_.max()), len(all_))


def _cell(
    found: Cell,
    work: Work,
    redis: StepCost,
    api: ApiCost,
    seconds: float,
    random: np.random.Generator,
) -> Times:
    """Of one of its API processes, each message's."""
    steps = _steps(found.replicas, work, seconds, random)
    # How many of a replica's streams are this API process', and at how many it has some.
    mine = random.multinomial(work.streams, np.full(found.apis, 1 / found.apis), size=len(steps))
    heard = (mine > 0).sum(axis=1)
    first, message, token = redis.seconds
    commits = first + message * heard + token * work.streams
    requests = _poisson(found.replicas * work.requests_s, seconds, random)
    published = _through(steps, commits, requests, api.redis_request_s)
    here = mine[:, 0] > 0
    order = np.argsort(published[here])
    arrivals = published[here][order]
    messages = api.message_s + api.token_s * mine[here, 0][order]
    asked = _poisson(found.replicas * work.requests_s / found.apis, seconds, random)
    written = _through(arrivals, messages, asked, api.request_s)
    late = written - steps[here][order]
    return late[steps[here][order] > WARM_S]


def _steps(replicas: int, work: Work, seconds: float, random: np.random.Generator) -> Times:
    """When the steps of all of them end, in order."""
    count = int(seconds * work.steps_s)
    lengths = random.normal(1, JITTER, (replicas, count)).clip(0.5) / work.steps_s
    begins = random.uniform(0, 1 / work.steps_s, (replicas, 1))
    return np.sort((begins + np.cumsum(lengths, axis=1)).ravel())


def _poisson(rate: float, seconds: float, random: np.random.Generator) -> Times:
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))


def _through(arrivals: Times, services: Times, others: Times, each_s: float) -> Times:
    """When each of `arrivals` leaves a server that `others` use, too."""
    both = np.concatenate([arrivals, others])
    order = np.argsort(both, kind="stable")
    took = np.concatenate([services, np.full(len(others), each_s)])[order]
    left = np.empty_like(both)
    left[order] = served(both[order], took)
    return left[: len(arrivals)]
