"""Scaler processes in virtual time: the real `reconcile` and the real `Performer`, one action an
event, so that a crash, a freeze or another scaler may come between any two."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from loraplex.broker.interface import Deposed
from scheduler import actions as do
from scheduler.memory import kept, remembered
from scheduler.perform import Performer
from scheduler.reconcile import Rules, reconcile
from scheduler.simulator.lanes import SharedLanes, SimLanes
from scheduler.simulator.loop import Loop
from scheduler.simulator.replicas import SimReplicas
from scheduler.simulator.rows import SimRows, Tables, lanes_of, world_of
from scheduler.simulator.tasks import SimTasks
from scheduler.starts import Remembered

TICK_S = 1.0
LEADER_LEASE_S = 5.0
SETTLE_S = 3.0
_ACTION_S = 0.002


@dataclass(slots=True)
class Leader:
    """The leadership as Redis holds it, and what is kept there for the next leader."""

    name: str = ""
    until: float = 0.0
    epoch: int = 0
    leased: bool = True  # tests break it: everybody leads
    kept: Mapping[str, Remembered] | None = None

    def lead(self, name: str, now: float, known_epoch: int) -> int | None:
        if self.leased and self.name != name and now < self.until:
            return None
        if self.name != name or now >= self.until:
            self.epoch = max(self.epoch, known_epoch) + 1
        self.name, self.until = name, now + LEADER_LEASE_S
        return self.epoch


class Crash(Exception):
    """The process ends here."""


class SimScaler:
    def __init__(
        self,
        name: str,
        loop: Loop,
        leader: Leader,
        shared: SharedLanes,
        tables: Tables,
        replicas: SimReplicas,
        tasks: SimTasks,
        rules: Rules,
        random_: random.Random,
        *,
        slowest_look_s: float = 0.0,
    ) -> None:
        self._name = name
        self._loop = loop
        self._leader = leader
        self._shared = shared
        self._tables = tables
        self._replicas = replicas
        self._rules = rules
        self._random = random_
        self._slowest_look_s = slowest_look_s
        self._rows = SimRows(tables)
        self._lanes = SimLanes(shared)
        ports: list[Any] = [_Port(p, self._before_call) for p in (self._rows, self._lanes, tasks)]
        self._performer = Performer(*ports)
        self._memory: Mapping[str, Remembered] = {}
        self._epoch = 0
        self._look_from = 0.0
        self._busy = False  # a look is under way
        self._woken = False
        self.dead = False
        self.frozen_until = 0.0
        self.driver_away = False
        self.crash_after: int | None = None  # calls of its ports
        self.freeze_after: tuple[int, float] | None = None  # actions, seconds
        loop.after(random_.uniform(0.0, TICK_S), self._tick)

    def wake(self) -> None:
        """A hint. It is forgotten while a look is under way: the next tick sees it all."""
        if not self._woken and not self.dead:
            self._woken = True
            self._loop.after(0.05, self._look)

    def _tick(self) -> None:
        if not self.dead:
            self._loop.after(TICK_S, self._tick)
            self._look()

    def _look(self) -> None:
        self._woken = False
        if self.dead or self._busy:
            return
        try:
            if not self._lead() or self._loop.now < self._look_from:
                return
            seen = self._lanes.observe(list(lanes_of(self._tables)))
        except redis.ConnectionError:
            self._epoch = 0
            self._look_from = self._loop.now + SETTLE_S
            return
        except Deposed:
            self._epoch = 0
            return
        processes = None
        if not self.driver_away:
            processes = {p.replica: p for p in self._replicas.driver.list()}
        world = world_of(self._tables, seen, processes, self._shared.time())
        look = reconcile(world, self._memory, self._rules)
        for error in look.failed.values():
            raise error
        self._memory = look.memory
        self._leader.kept = look.memory
        self._busy = True
        perform = partial(self._perform, list(look.actions), 0)
        if self._slowest_look_s and look.actions:  # the world goes on meanwhile
            self._loop.after(self._random.uniform(0.0, self._slowest_look_s), perform)
        else:
            perform()

    def _lead(self) -> bool:
        self._shared.check()
        epoch = self._leader.lead(self._name, self._loop.now, self._tables.epoch) or 0
        if epoch != self._epoch:
            self._epoch = self._rows.epoch = self._lanes.epoch = epoch
            if epoch:
                before = self._leader.kept or {}
                self._memory = {name: remembered(kept(known)) for name, known in before.items()}
                self._lanes.fence(list(lanes_of(self._tables)))
        return epoch > 0

    def _perform(self, actions: list[do.Action], done: int) -> None:
        """Those of one instant, until there are faults to come between them."""
        while actions and not self.dead:
            if self.freeze_after is not None and done >= self.freeze_after[0]:
                seconds, self.freeze_after = self.freeze_after[1], None
                self.frozen_until = self._loop.now + seconds
                self._loop.after(seconds, partial(self._perform, actions, done))
                return
            try:
                self._performer.perform([actions.pop(0)])
            except (Deposed, redis.ConnectionError):
                self._epoch = 0
                break
            except Crash:
                self.dead = True
            done += 1
            if self.crash_after is not None or self.freeze_after is not None:
                self._loop.after(_ACTION_S, partial(self._perform, actions, done))
                return
        self._busy = False

    def _before_call(self) -> None:
        """Of any of its ports: a crash may come between any two."""
        if self.crash_after is None:
            return
        if self.crash_after <= 0:
            raise Crash
        self.crash_after -= 1


class _Port:
    """A port whose calls may be the last."""

    def __init__(self, port: object, before: Callable[[], None]) -> None:
        self._port = port
        self._before = before

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._port, name)

        def checked(*args: object, **options: object) -> object:
            self._before()
            return call(*args, **options)

        return checked
