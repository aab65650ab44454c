"""Where each adapter is: on disk, packed in memory (the slab), or in a slot, ready to run.

A request's arrival starts its adapter's load, in a thread of its own, once for all who want it.
Slots are bounded by number (on a GPU a large adapter takes several), the slab by bytes but for what
is in slots or wanted by a request in the engine; a running sequence holds its slot. An idle slot is
given up by the cost of getting it back (GreedyDual: Cao & Irani, USENIX '97), a pinned one last.
When more adapters are wanted than there are slots, they take turns: who has waited for a quantum
makes the longest-served adapter admit no more, and after another quantum its sequences step back:
the prefix cache keeps what they have computed. So there is no cliff at the number of slots, and
nobody starves.
"""

import queue
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpu_worker.engine.request import AdapterRefused

Packed = TypeVar("Packed")

_MOST_FAILED = 1000  # that are remembered


@dataclass(slots=True)
class _Slot:
    placed: Any
    since: float
    size: int  # in slots
    credit: float  # GreedyDual: who has least is given up
    users: int = 0
    draining_since: float | None = None


@dataclass(frozen=True, slots=True)
class Tiers:
    """Adapters by where they are. `failed`: at the last try, and why."""

    slots: list[str]
    memory: list[str]  # and in no slot
    loading: list[str]
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Loaded(Generic[Packed]):
    adapter: str
    packed: Packed | None
    began: float
    seconds: float
    refusal: AdapterRefused | None = None


class Residency(Generic[Packed]):
    """The engine's `AdapterGate`. One owner; only `load` runs elsewhere.

    `load` reads and packs an adapter, or raises AdapterRefused; `size` tells its bytes; `place`
    brings it into a slot and `drop` frees that.
    """

    def __init__(
        self,
        load: Callable[[str], Packed],
        size: Callable[[Packed], int],
        place: Callable[[Packed], Any],
        drop: Callable[[Any], None],
        *,
        slots: int,
        slot_bytes: int,
        slab_bytes: int,
        quantum_s: float = 1.5,
    ) -> None:
        self._load = load
        self._size = size
        self._place = place
        self._drop = drop
        self._limit = slots
        self._slot_bytes = slot_bytes  # 0: every adapter takes one
        self._slab_bytes = slab_bytes
        self._quantum_s = quantum_s
        self._slots: dict[str, _Slot] = {}
        self._slab: OrderedDict[str, Packed] = OrderedDict()
        self._slab_used = 0
        self._cost: dict[str, float] = {}  # seconds that the last load took
        self._wanted: dict[str, int] = {}  # requests in the engine, by adapter
        self._blocked: dict[str, float] = {}  # since when somebody waits for a slot
        self._pinned: set[str] = set()
        self._loading: set[str] = set()
        self._failed: dict[str, str] = {}  # at the last try, and why
        self._loaded: queue.SimpleQueue[_Loaded[Packed]] = queue.SimpleQueue()
        self._clock = 0.0  # GreedyDual's
        # Told of each load: adapter, begin and end (monotonic seconds), whether it can run.
        self.on_loaded: Callable[[str, float, float, bool], None] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    # For the engine

    def want(self, adapter: str) -> None:
        """A request came that needs it: begin to load, if it is nowhere in memory."""
        self._wanted[adapter] = self._wanted.get(adapter, 0) + 1
        if adapter not in self._slots and adapter not in self._slab:
            self._start(adapter)

    def unwant(self, adapter: str) -> None:
        """The request has ended."""
        self._wanted[adapter] -= 1
        if not self._wanted[adapter]:
            del self._wanted[adapter]
            self._blocked.pop(adapter, None)

    def pin(self, adapter: str) -> None:
        """Load it, keep it in memory, and give up its idle slot only where there is no other."""
        self.want(adapter)
        self._pinned.add(adapter)

    def unpin(self, adapter: str) -> None:
        self._pinned.remove(adapter)
        self.unwant(adapter)

    def poll(self) -> dict[str, AdapterRefused]:
        """Take in what has been loaded. Returns the adapters that could not be, and why."""
        refused = {}
        while not self._loaded.empty():
            done = self._loaded.get()
            self._loading.discard(done.adapter)
            refusal = self._refusal(done)
            if self.on_loaded is not None:
                runs = refusal is None and done.packed is not None
                self.on_loaded(done.adapter, done.began, done.began + done.seconds, runs)
            if refusal is not None or done.packed is None:
                refused[done.adapter] = refusal or AdapterRefused("could not be loaded")
                self._failed[done.adapter] = str(refused[done.adapter])
                if len(self._failed) > _MOST_FAILED:
                    del self._failed[next(iter(self._failed))]
                continue
            self._failed.pop(done.adapter, None)
            self._cost[done.adapter] = done.seconds
            self._keep(done.adapter, done.packed)
        return refused

    def _refusal(self, done: _Loaded[Packed]) -> AdapterRefused | None:
        if done.packed is None:
            return done.refusal
        needed = self._slots_for(done.packed)
        if needed <= self._limit:
            return None
        return AdapterRefused(f"it needs {needed} adapter slots, this replica has {self._limit}")

    def wait(self, seconds: float) -> None:
        """Sleep until a load has ended, at most so long."""
        try:
            self._loaded.put(self._loaded.get(timeout=seconds))
        except queue.Empty:
            return

    def __getitem__(self, adapter: str) -> Any:
        return self._slots[adapter].placed

    def tiers(self) -> Tiers:
        """At this moment; from whatever thread."""
        slots = list(self._slots)
        held = set(slots)
        memory = [adapter for adapter in list(self._slab) if adapter not in held]
        return Tiers(slots, memory, list(self._loading), dict(self._failed))

    @property
    def resident(self) -> list[str]:
        """In slots, ready to run."""
        return list(self._slots)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def loading(self) -> bool:
        """Whether a load is under way, or one that has ended was not taken in yet."""
        return bool(self._loading)

    # The gate

    def acquire(self, adapter: str, now: float) -> bool:
        slot = self._slots.get(adapter) or self._take_slot(adapter, now)
        if slot is None or slot.draining_since is not None:
            self._blocked.setdefault(adapter, now)
            return False
        self._blocked.pop(adapter, None)
        slot.users += 1
        slot.credit = self._clock + self._cost.get(adapter, 0.0)
        return True

    def release(self, adapter: str) -> None:
        slot = self._slots[adapter]
        slot.users -= 1
        if slot.draining_since is not None and not slot.users:
            self._drop(self._slots.pop(adapter).placed)  # its turn is over; it queues again

    def overdue(self, now: float) -> set[str]:
        patience = self._quantum_s
        # One that is still being loaded could not use a slot.
        starving = sum(
            self._slots_for(self._slab[adapter])
            for adapter, since in self._blocked.items()
            if now - since > patience and adapter in self._slab and adapter not in self._slots
        )
        draining = [s for s in self._slots.values() if s.draining_since is not None]
        idle = sum(s.size for s in self._slots.values() if not s.users)
        missing = starving - sum(s.size for s in draining) - idle - self._unused
        if missing > 0:
            served = [
                s
                for s in self._slots.values()
                if s.users and s.draining_since is None and now - s.since > patience
            ]
            for slot in sorted(served, key=lambda s: s.since):
                if missing <= 0:
                    break
                slot.draining_since = now
                missing -= slot.size
        elif not starving:
            for slot in draining:
                slot.draining_since = None
        return {
            adapter
            for adapter, slot in self._slots.items()
            if slot.draining_since is not None
            and slot.users
            and now - slot.draining_since > patience
        }

    # Inside

    def _take_slot(self, adapter: str, now: float) -> _Slot | None:
        """From the slab to a slot; whoever has blocked longer goes first."""
        packed = self._slab.get(adapter)
        if packed is None:
            self._start(adapter)
            return None
        size = self._slots_for(packed)
        idle = [a for a, s in self._slots.items() if not s.users]
        mine = self._blocked.get(adapter, now)
        before_me = sum(
            self._slots_for(self._slab[a])
            for a, since in self._blocked.items()
            if since < mine and a in self._slab and a not in self._slots
        )
        if self._unused + sum(self._slots[a].size for a in idle) < before_me + size:
            return None
        while self._unused < size:
            victim = min(idle, key=self._worth)
            idle.remove(victim)
            self._clock = max(self._clock, self._slots[victim].credit)
            self._drop(self._slots.pop(victim).placed)
        self._slab.move_to_end(adapter)
        slot = self._slots[adapter] = _Slot(self._place(packed), now, size, self._clock)
        return slot

    def _worth(self, adapter: str) -> tuple[bool, bool, float]:
        """Of an idle slot: the least goes first."""
        return adapter in self._pinned, adapter in self._wanted, self._slots[adapter].credit

    @property
    def _unused(self) -> int:
        return self._limit - sum(s.size for s in self._slots.values())

    def _slots_for(self, packed: Packed) -> int:
        return max(1, -(-self._size(packed) // self._slot_bytes)) if self._slot_bytes else 1

    def _start(self, adapter: str) -> None:
        if adapter not in self._loading:
            self._loading.add(adapter)
            self._threads.submit(self._run, adapter)

    def _run(self, adapter: str) -> None:
        started = time.monotonic()
        packed: Any = None
        refusal = None
        try:
            packed = self._load(adapter)
        except AdapterRefused as refused:
            refusal = refused
        except Exception as failed:  # whatever it was, whoever waits for it must hear of it
            refusal = AdapterRefused(f"{type(failed).__name__}: {failed}")
        seconds = time.monotonic() - started
        self._loaded.put(_Loaded(adapter, packed, started, seconds, refusal))

    def _keep(self, adapter: str, packed: Packed) -> None:
        self._slab[adapter] = packed
        self._slab_used += self._size(packed)
        for oldest in list(self._slab):
            if self._slab_used <= self._slab_bytes:
                break
            held = oldest in self._wanted or oldest in self._slots  # dropping it would free nothing
            if not held and oldest != adapter:
                self._slab_used -= self._size(self._slab.pop(oldest))
