"""From what steps, tokens and requests cost to the size of a cell. Pure.

A cell is an installation whose Redis is one server. In it every API process hears of every replica
that serves one of its streams: twice the replicas are twice the messages for each of twice the
processes. So a cell that grows gets dearer by the stream, and there is a best size.
"""

import math
from dataclasses import dataclass

from benchmarks.capacity.api_cost import ApiCost
from benchmarks.capacity.redis_cost import StepCost

MOST_APIS = 1000


@dataclass(frozen=True, slots=True)
class Work:
    steps_s: float = 25.0  # of a replica: tokens a second of each stream
    streams: int = 100  # of a replica, at once
    tokens: int = 250  # of a request's answer

    @property
    def requests_s(self) -> float:
        """That end, and begin, at a replica."""
        return self.streams * self.steps_s / self.tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """Cores are those of one process; shares of one."""

    replicas: int
    apis: int
    streams: int
    redis: float
    api: float  # of each API process
    received_mb_s: float  # by Redis
    sent_mb_s: float
    journal_gb: float  # of Redis' memory, at ten minutes' retention

    @property
    def cores_a_thousand_streams(self) -> float:
        """API processes, Redis and the scaler, as many cores as they need to themselves."""
        return (self.apis + 2) / self.streams * 1000


def apis_of_a_step(apis: int, streams: int) -> float:
    """How many API processes a replica's streams belong to, spread at random."""
    return apis * (1 - (1 - 1 / apis) ** streams)


def cell(replicas: int, apis: int, work: Work, redis: StepCost, api: ApiCost) -> Cell:
    steps = replicas * work.steps_s
    requests = replicas * work.requests_s
    heard = apis_of_a_step(apis, work.streams)

    def of_step(cost: tuple[float, float, float]) -> float:
        return cost[0] + cost[1] * heard + cost[2] * work.streams

    tokens = steps * work.streams
    each = steps * heard * api.message_s + tokens * api.token_s + requests * api.request_s
    return Cell(
        replicas,
        apis,
        replicas * work.streams,
        steps * of_step(redis.seconds) + requests * api.redis_request_s,
        each / apis,
        steps * of_step(redis.received) / 1e6,
        steps * of_step(redis.sent) / 1e6,
        tokens * 600 * redis.stored_token / 1e9,
    )


def with_apis(
    replicas: int, work: Work, redis: StepCost, api: ApiCost, share: float
) -> Cell | None:
    """With as few API processes as keep below that share of a core; None: no number does, or Redis
    doesn't."""
    for apis in range(1, MOST_APIS):
        found = cell(replicas, apis, work, redis, api)
        if found.redis > share:
            return None
        if found.api <= share:
            return found
    return None


def best(work: Work, redis: StepCost, api: ApiCost, share: float) -> Cell:
    """The one that takes the fewest cores for a stream."""
    cells = []
    for replicas in range(1, 10_000):
        found = with_apis(replicas, work, redis, api, share)
        if found is None:
            break
        cells.append(found)
    return min(cells, key=lambda each: each.cores_a_thousand_streams)


def cells_for(streams: int, found: Cell) -> int:
    return math.ceil(streams / found.streams)
