"""One run: the undisturbed answers, then the same requests while things break."""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chaos import books, leaks
from benchmarks.chaos.clients import Clients, undisturbed
from benchmarks.chaos.faults import FAULTS, Fault, plan
from benchmarks.chaos.platform import Platform
from benchmarks.chaos.requests import Answer, make
from benchmarks.chaos.verdict import FAULTS_OF_BOOKS, FAULTS_OF_DELIVERY, Verdict
from loraplex.store.models import ModelStore

CLIENTS = 16
_WEIGHTS = {
    "openai_stream": 3,
    "openai_whole": 3,
    "sse": 6,
    "sse_slow": 2,
    "leaves": 1,
    "cancels": 1,
}
_CALM_S = 2.0  # at least, between two faults, so that they don't all fall into one outage
_TOGETHER = 0.25  # share of faults that come with the next one


async def chaos(
    seed: int, requests: int, faults: int, models: ModelStore, folder: Path
) -> dict[str, Any]:
    """The benchmark's result. Bounded: a request that takes over four minutes is stuck."""
    random_ = random.Random(seed)
    platform = Platform(folder, models)
    verdict = Verdict()
    started = time.monotonic()
    try:
        await platform.start()
        bodies = make(random_, -(-requests // 4))
        answers = await undisturbed(platform, bodies)
        clients = Clients(platform, verdict, random.Random(seed + 1))
        manners = random_.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=requests)
        progress = Progress(requests, faults)
        storm = asyncio.create_task(_storm(platform, plan(random_, faults), random_, progress))
        await _send_all(clients, manners, bodies, answers, progress)
        struck = await storm
        await clients.aclose()
        await platform.until(platform.all_ready)
        await leaks.look(platform, verdict)
        await books.look(platform, verdict)
    finally:
        await platform.stop()
    for note in verdict.notes:
        print(note, file=sys.stderr)
    return {
        "seed": seed,
        "requests": requests,
        "faults": struck.total(),
        "faults_by_kind": {fault.__name__: struck[fault.__name__] for fault in FAULTS},
        **{kind: verdict.counts[kind] for kind in FAULTS_OF_DELIVERY + FAULTS_OF_BOOKS},
        "manners": dict(verdict.manners),
        "clients_met": dict(verdict.met),
        "seconds": round(time.monotonic() - started),
    }


class Progress:
    """Requests and faults keep step: no fault strikes an idle platform."""

    def __init__(self, requests: int, faults: int) -> None:
        self.requests = requests
        self.faults = faults
        self.gap = 0.9 * requests / faults  # requests from one fault to the next
        self.ended = 0
        self.struck = 0
        self._changed = asyncio.Condition()

    async def request_ended(self) -> None:
        self.ended += 1
        await self._tell()

    async def fault_struck(self) -> None:
        self.struck += 1
        await self._tell()

    async def may_send(self, number: int) -> None:
        """A few more than this fault and the next need; all after the last."""
        await self._until(
            lambda: self.struck == self.faults or number < (self.struck + 1) * self.gap + CLIENTS
        )

    async def may_strike(self) -> None:
        await self._until(lambda: self.ended >= (self.struck + 0.3) * self.gap)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, fact: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(fact)


async def _send_all(
    clients: Clients,
    manners: list[str],
    bodies: list[dict[str, Any]],
    answers: list[list[Answer]],
    progress: Progress,
) -> None:
    left = list(enumerate(manners))[::-1]

    async def client() -> None:
        while left:
            number, manner = left.pop()
            await progress.may_send(number)
            which = number % len(bodies)
            await clients.send(manner, f"request-{number}", bodies[which], answers[which])
            await progress.request_ended()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _storm(
    platform: Platform, faults: list[Fault], random_: random.Random, progress: Progress
) -> Counter[str]:
    """Spread over the requests: the first soon, the last before the last of them."""
    struck: Counter[str] = Counter()
    running: list[asyncio.Task[None]] = []
    for fault in faults:
        await progress.may_strike()
        if random_.random() > _TOGETHER:
            await asyncio.gather(*running)
            running.clear()
            await asyncio.sleep(_CALM_S)
        print(f"{progress.ended:5} of {progress.requests}: {fault.__name__}", flush=True)
        running.append(asyncio.ensure_future(fault(platform, random_)))
        struck[fault.__name__] += 1
        await progress.fault_struck()
    await asyncio.gather(*running)
    return struck


def run(seed: int, requests: int, faults: int, models: ModelStore) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(chaos(seed, requests, faults, models, Path(folder) / "home"))
