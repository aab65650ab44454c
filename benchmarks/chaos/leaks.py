"""What is left in Redis and in the replicas when all clients have gone."""

import asyncio
import time
from typing import Any

from benchmarks.chaos.platform import REPLICAS, Platform
from benchmarks.chaos.verdict import Verdict
from loraplex.keys import (
    APIS,
    DECISIONS,
    EPOCH,
    GROUP,
    LEADER,
    LEARNED,
    PUBLISHED,
    TARGETS,
)

SETTLE_S = 90.0  # grace periods, dead API processes and dead replicas' consumers pass by then


async def look(platform: Platform, verdict: Verdict) -> None:
    """Slots that are never freed, keys that nobody removes."""
    deadline = time.monotonic() + SETTLE_S
    while (left := await _left(platform)) and time.monotonic() < deadline:
        await asyncio.sleep(1)
    for each in left:
        verdict.blame("leaked", each)


async def _left(platform: Platform) -> list[str]:
    redis, lane = platform.redis, platform.lane
    left = []
    jobs = await redis.xlen(lane.jobs)
    if jobs:
        left.append(f"{jobs} jobs on the lane")
    async with platform.http() as api:
        shown: Any = (await api.get("/api/v1/deployments/chat")).json()
    usage = await redis.xlen(lane.usage)
    if usage:
        left.append(f"{usage} usage records on the lane")
    slots = sum(each["running"] for each in shown["replicas"])
    if slots:
        left.append(f"{slots} slots")
    consumers = await redis.xinfo_consumers(lane.jobs, GROUP)
    if len(consumers) > REPLICAS:
        left.append(f"{len(consumers)} consumers")
    for hash_, most in ((lane.reports, REPLICAS), (lane.batches, 0), (lane.deaths, 0)):
        if await redis.hlen(hash_) > most:
            left.append(f"{hash_}: {await redis.hkeys(hash_)}")
    apis = await redis.zcard(APIS)
    if apis > len(platform.api_urls):
        left.append(f"{apis} API processes are known")
    return left + await _keys_for_ever(platform)


async def _keys_for_ever(platform: Platform) -> list[str]:
    """Keys without an end, but for those of which there is one a lane."""
    lane = platform.lane
    one = {lane.jobs, lane.journal, lane.gate, lane.reports, lane.batches, lane.deaths}
    one |= {lane.dead_letters, APIS, LEADER, EPOCH, PUBLISHED}
    one |= {LEARNED, DECISIONS, lane.traffic, lane.usage, lane.logs, TARGETS}
    found = []
    for hash_ in (LEARNED, DECISIONS):  # one deployment
        if await platform.redis.hlen(hash_) > 1:
            found.append(f"{hash_}: {await platform.redis.hkeys(hash_)}")
    async for raw in platform.redis.scan_iter(match="lpx:*", count=500):
        key = raw.decode()
        ours = key not in one and not key.startswith("lpx:celery:")
        if ours and await platform.redis.ttl(key) == -1:
            found.append(f"{key} has no end")
    return found
