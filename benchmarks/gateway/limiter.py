"""The limiter alone, on a real Valkey: what a call takes, and how exact its rate is."""

import asyncio
import itertools
import statistics
import time

from loraplex.broker.connection import connect_async
from loraplex.broker.limiter import Limiter
from loraplex.limits import Limits, Refusal, Scope

_RATE = 60_000  # requests a minute
_names = itertools.count()


async def _ask(limiter: Limiter, scopes: list[Scope], tenant: str) -> bool:
    name = f"r{next(_names)}"
    verdict = await limiter.reserve(tenant, scopes, {name: 48}, time.time() + 600)
    return not isinstance(verdict, Refusal)


async def added_ms_p99(url: str, calls: int) -> float:
    """Of reserving in two scopes with all limits, one call after the other, as a request meets it;
    what is held is settled between them."""
    client = connect_async(url)
    limiter = Limiter(client)
    limits = Limits(10**8, 10**9, 10**9, 10**6)
    scopes = [Scope("", limits), Scope("dep-1", limits)]
    times = []
    for number in range(calls):
        name = f"p{number}"
        begun = time.perf_counter()
        await limiter.reserve("p99", scopes, {name: 48}, time.time() + 600)
        times.append((time.perf_counter() - begun) * 1000)
        await limiter.settle("p99", {name: 40})
    await client.aclose()
    return statistics.quantiles(times, n=100)[98]


async def rate_error(url: str, callers: int, seconds: float) -> float:
    """Of what is let through by an empty bucket, over some time, while all callers ask again and
    again: its difference from the rate, as a part of it."""
    client = connect_async(url)
    limiter = Limiter(client)
    scopes = [Scope("", Limits(requests_per_min=_RATE))]
    await limiter.reserve("rate", scopes, {"full": 0}, time.time() + 600)
    now_s, now_us = await client.time()
    empty = (now_s + 60) * 1_000_000 + now_us
    await client.hset("lpx:{limits:rate}:scope:", "req", empty)  # type: ignore[misc]
    accepted, begun = 0, time.perf_counter()

    async def call() -> None:
        nonlocal accepted
        while time.perf_counter() - begun < seconds:
            if await _ask(limiter, scopes, "rate"):
                accepted += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    took = time.perf_counter() - begun
    await client.aclose()
    expected = _RATE / 60 * took
    return abs(accepted - expected) / expected
