"""Where requests stand in their lanes' queues, and how long that may take: told to who waits."""

import asyncio
import math
import time
from dataclasses import dataclass

from cachetools import LRUCache

from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import Unavailable
from loraplex.explanation import Explanation
from loraplex.keys import Lane

_LOOK_AGAIN_S = 1.0  # one look serves all who wait on a lane
_RARELY = 50  # times as long as it took
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """`ahead`: answers that wait before it. `starting_s`: until a replica is ready, where none is;
    `eta_s`: until it is this one's turn. None: not known."""

    ahead: int
    starting_s: float | None = None
    eta_s: float | None = None

    @property
    def text(self) -> str:
        ahead = f"{self.ahead} ahead"
        if self.starting_s is not None:
            return f"starting a replica, ready in about {self.starting_s:.2g} s, {ahead}"
        if self.eta_s is not None:
            return f"queued, {ahead}, about {math.ceil(self.eta_s)} s"
        return f"queued, {ahead}, waiting for a replica"

    @property
    def headers(self) -> dict[str, str]:
        eta = {} if self.eta_s is None else {"x-queue-eta-s": f"{self.eta_s:.1f}"}
        return {"x-queue-ahead": str(self.ahead), **eta}


@dataclass(frozen=True, slots=True)
class Load:
    """`waiting`: answers; `slots`: how many run at once."""

    waiting: int
    slots: int


@dataclass(frozen=True, slots=True)
class _Seen:
    position: dict[str, int]  # by stream id
    known: Explanation | None
    at: float  # Redis' clock
    mine: float  # this process' clock at that time
    until: float  # by that clock: then it is old


class Queues:
    def __init__(self, broker: ApiBroker) -> None:
        self._broker = broker
        self._seen: LRUCache[Lane, _Seen] = LRUCache(_MOST)
        self._looking: dict[Lane, asyncio.Future[_Seen | None]] = {}

    async def load(self, lane: Lane, since: float = 0.0) -> Load:
        """Of a lane: what was seen a moment ago, or (later) since that time of this process' clock.
        Redis away: as if nothing ran there."""
        seen = await self._look(lane, since)
        if seen is None or seen.known is None:
            return Load(0, 0)
        slots = seen.known.inputs.get("slots", 0) * seen.known.inputs.get("ready", 0)
        return Load(len(seen.position), int(slots))

    async def place(self, lane: Lane, entry: str) -> Place | None:
        """None: it doesn't wait any more, or Redis is away."""
        seen = await self._look(lane)
        ahead = seen.position.get(entry) if seen else None
        if seen is None or ahead is None:
            return None
        return estimate(ahead, seen.known, seen.at + time.monotonic() - seen.mine)

    async def _look(self, lane: Lane, since: float = 0.0) -> _Seen | None:
        seen = self._seen.get(lane)
        if seen is not None and time.monotonic() < seen.until:
            if seen.mine >= since:
                return seen
            await asyncio.sleep(seen.until - time.monotonic())
        looking = self._looking.get(lane)
        if looking is None:  # one for all who wait
            looking = self._looking[lane] = asyncio.ensure_future(self._ask(lane))
            looking.add_done_callback(lambda _: self._looking.pop(lane, None))
        return await asyncio.shield(looking)

    async def _ask(self, lane: Lane) -> _Seen | None:
        begun = time.monotonic()
        try:
            waiting = await self._broker.waiting(lane, _MOST)
            known, at = await self._broker.explanation(lane.deployment_id)
        except Unavailable:
            return None
        now = time.monotonic()
        # Redis reads the jobs for it: where they are large, it is asked more rarely.
        until = now + max(_LOOK_AGAIN_S, _RARELY * (now - begun))
        position = {each: index for index, each in enumerate(waiting)}
        seen = self._seen[lane] = _Seen(position, known, at, now, until)
        return seen


def estimate(ahead: int, known: Explanation | None, now: float) -> Place:
    """From how many answers run at once here, and how long one takes. Pure."""
    if known is None or known.inputs.get("slots", 0) <= 0:
        return Place(ahead)
    ready = known.inputs.get("ready", 0)
    starting_s = None if ready else _until_ready(known, now)
    turns_s = ahead / (known.inputs["slots"] * max(1, ready)) * known.inputs.get("hold_s", 0.0)
    if not ready and starting_s is None:
        return Place(ahead)
    return Place(ahead, starting_s, (starting_s or 0.0) + turns_s)


def _until_ready(known: Explanation, now: float) -> float | None:
    if known.cold_start_s <= 0:
        return None
    passed_s = now - known.starting_since if known.starting_since is not None else 0.0
    return min(max(0.0, known.cold_start_s - passed_s), known.cold_start_s)
