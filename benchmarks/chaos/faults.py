"""Everything that breaks, one function each."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from benchmarks.chaos.platform import LEASE_S, Platform

_PAST_LEASE_S = LEASE_S + 1.5


async def kill_replica(platform: Platform, random_: random.Random) -> None:
    """Loading or in the middle of a step."""
    for process in _one(platform, random_):
        process.kill()


async def freeze_replica(platform: Platform, random_: random.Random) -> None:
    """Past its lease: it must notice that its jobs are others' now."""
    for process in _one(platform, random_):
        process.suspend()
        await asyncio.sleep(_PAST_LEASE_S)
        with suppress(psutil.NoSuchProcess):
            process.resume()


async def kill_api(platform: Platform, random_: random.Random) -> None:
    platform.kill(random_.choice(list(platform.api_urls)))


async def freeze_api(platform: Platform, random_: random.Random) -> None:
    name = random_.choice(list(platform.api_urls))
    platform.freeze(name)
    await asyncio.sleep(random_.uniform(1, 6))
    platform.resume(name)


async def kill_valkey(platform: Platform, random_: random.Random) -> None:
    await platform.restart_valkey(random_.uniform(0, 3), signal.SIGKILL)


async def restart_valkey(platform: Platform, random_: random.Random) -> None:
    await platform.restart_valkey(random_.uniform(0, 3), signal.SIGTERM)


async def sever(platform: Platform, random_: random.Random) -> None:
    """All connections of one kind of process, at once."""
    platform.doors[random_.choice(list(platform.doors))].sever()


async def part_replicas(platform: Platform, random_: random.Random) -> None:
    """Cut off from Redis past their leases."""
    await platform.doors["replicas"].part(_PAST_LEASE_S)


async def part_api(platform: Platform, random_: random.Random) -> None:
    await platform.doors[random_.choice(list(platform.api_urls))].part(random_.uniform(1, 4))


async def stall(platform: Platform, random_: random.Random) -> None:
    """Nothing arrives for longer than a lease, or than a call's timeout; then the old bytes do."""
    door = random_.choice([*platform.api_urls, "replicas", "replicas"])
    await platform.doors[door].stall(random_.choice((_PAST_LEASE_S, 6.0)))


async def kill_scaler(platform: Platform, random_: random.Random) -> None:
    platform.kill(random_.choice(("scaler", "tasks")))


Fault = Callable[[Platform, random.Random], Awaitable[None]]
FAULTS: tuple[Fault, ...] = (
    *(kill_replica, freeze_replica, kill_api, freeze_api, kill_valkey, restart_valkey, sever),
    *(part_replicas, part_api, stall, kill_scaler),
)


def plan(random_: random.Random, count: int) -> list[Fault]:
    """As many of each kind, in any order."""
    rounds = [random_.sample(FAULTS, len(FAULTS)) for _ in range(-(-count // len(FAULTS)))]
    return [fault for each in rounds for fault in each][:count]


def _one(platform: Platform, random_: random.Random) -> list[psutil.Process]:
    found = platform.replicas()
    return [random_.choice(found)] if found else []
