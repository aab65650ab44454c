"""One look at everything: facts → actions. Pure; `perform.py` does them, in this order.

Level-triggered: each look starts from what is there, never from what an earlier one meant to do. So
an action that was lost, done twice or done by another scaler is just another fact.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from loraplex.broker.interface import SeenLane
from loraplex.replica_state import ReplicaState
from loraplex.status import ADMITTING, Event, Status
from scheduler import actions as do
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.judge import Limits
from scheduler.law import decide
from scheduler.placement import TURN_S, Claim, Fleet, Holder, Place, allow, full
from scheduler.plan import Plan, in_place, plan, plan_beside
from scheduler.scaling import Decision, Law, Observation, Scaling
from scheduler.settle import Settled, serving, settle
from scheduler.starts import NEVER_ASKED, Counted, Remembered, expected_start_s
from scheduler.trainings import TrainingRules, share_out
from scheduler.wind_down import order, retire, stragglers, wind_down

PREPARE_AGAIN_S, PREPARE_AT_LEAST_EACH_S = 15.0, 300.0


@dataclass(frozen=True, slots=True)
class Rules:
    fleet: Fleet
    limits: Limits = field(default_factory=Limits)
    law: Law = decide
    slots: int = 32  # requests that a replica runs at once, before any has said it
    cold_start_s: float = 30.0  # believed before one was measured
    trainings: TrainingRules = field(default_factory=TrainingRules)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with all that it was made of, for whoever explains it."""

    scaling: Scaling
    seen: Observation
    memory: Any  # the law's, before
    decision: Decision
    allowed: int = 0  # replicas that the fleet has room for
    tenant: str = ""
    holders: Sequence[Holder] = ()  # of its places
    change_waits: bool = False  # for a place, to be rolled out
    starting_since: float | None = None


@dataclass(slots=True)
class Look:
    """What a look leads to."""

    now: float
    actions: list[do.Action] = field(default_factory=list)
    memory: dict[str, Remembered] = field(default_factory=dict)
    decided: dict[str, Decided] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)  # held: nothing could be decided
    holders: Sequence[Holder] = ()  # of the fleet's places

    @contextmanager
    def isolated(self, facts: DeploymentFacts) -> Iterator[None]:
        """What can't be decided for one deployment must not hold up the others."""
        try:
            yield
        except Exception as error:
            self.failed[facts.id] = error


@dataclass(frozen=True, slots=True)
class _Case:
    """A deployment after its replicas were judged and its status was settled."""

    facts: DeploymentFacts
    settled: Settled
    lane: SeenLane
    decided: Decided | None = None

    @property
    def decision(self) -> Decision | None:
        return self.decided.decision if self.decided else None

    @property
    def living(self) -> list[ReplicaFacts]:
        """On lanes that requests go to, or will."""
        return serving(self.settled.living, self.facts)


def reconcile(world: World, memory: Mapping[str, Remembered], rules: Rules) -> Look:
    look = Look(world.now)
    look.memory.update((name, memory[name]) for name in world.unread if name in memory)
    cases: list[_Case] = []
    for facts in world.deployments:
        known = memory.get(facts.id, Remembered())
        look.memory[facts.id] = known
        if facts.lane not in world.lanes:
            continue  # no data: hold
        with look.isolated(facts):
            cases.append(_examine(facts, world, known, rules, look))
    claims = {case.facts.id: _claim(case, world, look) for case in cases}
    allowed = allow([*claims.values()], rules.fleet.size)
    free = _free_places(world, rules.fleet)
    look.holders = [
        Holder(d.tenant, d.name, len(rows))
        for d in world.deployments
        if (rows := world.replicas.get(d.id))
    ]
    for case in sorted(cases, key=lambda c: claims[c.facts.id].next_rank):
        room = allowed[case.facts.id]
        if case.decided is not None:
            look.decided[case.facts.id] = replace(
                case.decided, allowed=room, tenant=case.facts.tenant, holders=look.holders
            )
        with look.isolated(case.facts):
            look.actions += _act(case, room, free, world, look)
    look.actions.extend(do.EndOrphan(name) for name in world.orphans)
    look.actions.extend(_trainings(world, allowed, rules, look))
    return look


def _trainings(
    world: World, allowed: Mapping[str, int], rules: Rules, look: Look
) -> Iterator[do.Action]:
    """What replicas leave over. They come from the places that they have, and may have."""
    if not (world.trainings and world.driver_heard):
        return
    has = {name: len(rows) for name, rows in world.replicas.items()}
    needed = sum(max(allowed.get(name, 0), has.get(name, 0)) for name in {*allowed, *has})
    needed += len(world.taken)
    intended = {Place(a.host, a.slot) for a in look.actions if isinstance(a, do.Intend)}
    taken = _taken(world) | intended
    yield from share_out(world.trainings, needed, taken, rules.fleet, rules.trainings, world.now)


def _taken(world: World) -> set[Place]:
    """By replicas."""
    return {Place(r.host, r.slot) for rows in world.replicas.values() for r in rows} | world.taken


def _examine(
    facts: DeploymentFacts, world: World, known: Remembered, rules: Rules, look: Look
) -> _Case:
    lane = world.lanes[facts.lane]
    replicas = world.replicas.get(facts.id, ())
    settled = settle(facts, replicas, world, known, rules.limits)
    look.actions += settled.actions
    case = _Case(settled.facts, settled, lane)
    if settled.status in ADMITTING and settled.status != Status.PENDING:
        case = _decided(case, world, rules)
    elif settled.status == Status.STOPPED:  # once it is started, nothing is kept of before
        settled.remembered = replace(settled.remembered, law=None)
    if not _prepares(case) and settled.remembered.prepare_asked != NEVER_ASKED:
        settled.remembered = replace(settled.remembered, prepare_asked=NEVER_ASKED)
    look.memory[facts.id] = case.settled.remembered
    return case


def _decided(case: _Case, world: World, rules: Rules) -> _Case:
    facts, settled, lane = case.facts, case.settled, case.lane
    known = settled.remembered
    starting = [r for r in case.living if r.state == ReplicaState.STARTING]
    ready = [r for r in case.living if r.lane == facts.lane and r.state == ReplicaState.READY]
    capacities = [r.seen.report.capacity for r in ready if r.seen and r.seen.report.capacity]
    counted = _counted(known.counted, lane)
    seen = Observation(
        waiting=lane.waiting,
        running=lane.running,
        ready=len(ready),
        starting=len(starting),
        slots=min(capacities, default=rules.slots),
        arrived=counted.total,
        starting_s=sum(world.now - r.created_at for r in starting),
        cold_start_s=expected_start_s(known, rules.cold_start_s),
    )
    decision, law = rules.law(facts.scaling, seen, known.law, world.now)
    load = lane.waiting + lane.running
    used_at = world.now if load else known.used_at
    busy = _busy(known.busy, -int(-load // seen.slots), seen.cold_start_s, world.now)
    settled.remembered = replace(known, law=law, used_at=used_at, busy=busy, counted=counted)
    since = min((r.created_at for r in starting), default=None)
    decided = Decided(*(facts.scaling, seen, known.law, decision), starting_since=since)
    return replace(case, decided=decided)


def _counted(known: Counted, lane: SeenLane) -> Counted:
    """Arrivals of a deployment over all its lanes: each counts its own, and may come again."""
    offset = known.offset
    if known.lane != lane.lane.name:
        offset = known.total - lane.arrived if known.lane else 0
    return Counted(lane.lane.name, offset, lane.arrived + offset)


def _busy(known: tuple[int, float], now_busy: int, for_s: float, now: float) -> tuple[int, float]:
    """How many replicas have work, or had it so lately that another deployment, of no higher
    priority, could not use their places before they have it again; and when that was."""
    busy, at = known
    return known if now_busy < busy and now - at < for_s else (now_busy, now)


def _claim(case: _Case, world: World, look: Look) -> Claim:
    facts, settled = case.facts, case.settled
    had = [r for r in case.living if r.state != ReplicaState.DRAINING]
    has, surge = len(had), _surge(case, world)
    known = look.memory[facts.id]
    since = (known.surge_since or world.now) if surge else None
    if since != known.surge_since:
        look.memory[facts.id] = replace(known, surge_since=since)
    if case.decision is None:
        return Claim(facts.id, 0, 0, 0, has=has)
    wanted = case.decision.replicas
    return Claim(
        deployment=facts.id,
        wanted=wanted,
        guaranteed=min(facts.scaling.min_replicas, wanted),
        busy=min(wanted, settled.remembered.busy[0]),
        surge=surge,
        surge_s=world.now - since if since is not None else 0.0,
        priority=facts.priority,
        has=has,
        used_at=settled.remembered.used_at,
        waited_s=case.lane.oldest_wait_s,
        held_s=max((world.now - r.created_at for r in had), default=0.0),
    )


def _surge(case: _Case, world: World) -> int:
    """Replicas over those that the law wants, while a change is rolled out."""
    facts, decision = case.facts, case.decision
    if decision is None:
        return 0
    surge, wanted = 0, decision.replicas
    if facts.on_trial:
        surge = max(1, wanted)
    elif any(r.revision != facts.goal for r in case.living):
        surge = wanted if facts.goal_lane != facts.lane else min(1, wanted)
    return surge + len([*stragglers(facts, case.settled, world)])


def _free_places(world: World, fleet: Fleet) -> Iterator[Place]:
    if not world.driver_heard:
        return iter(())  # who knows which processes have ended
    return fleet.free(_taken(world) | {t.place for t in world.trainings if t.place})


def _act(
    case: _Case, allowed: int, free: Iterator[Place], world: World, look: Look
) -> Iterator[do.Action]:
    status = case.settled.status
    yield from retire(case.facts, case.settled, world)
    if status not in ADMITTING:
        yield from wind_down(case.facts, case.settled, case.lane)
        return
    if case.lane.gate == "shut":
        yield do.OpenGate(case.facts.lane)
    if _prepares(case):
        yield from _prepare(case, world, look)
    if status != Status.PENDING:
        yield from _scale(case, allowed, free, world, look)


def _prepares(case: _Case) -> bool:
    behind = case.facts.prepared < case.facts.target and case.settled.status in ADMITTING
    return case.settled.status == Status.PENDING or behind


def _prepare(case: _Case, world: World, look: Look) -> Iterator[do.Action]:
    """Ask for the artefacts, again and again: a task may be lost, and one that finds another at
    work on the same ends at once. More and more seldom: a large model takes its time."""
    target, known = case.facts.target, look.memory[case.facts.id]
    revision, at, times = known.prepare_asked
    if revision != target:
        times = 0
    pause_s = min(PREPARE_AGAIN_S * 2 ** max(0, times - 1), PREPARE_AT_LEAST_EACH_S)
    if times == 0 or world.now - at > pause_s:
        asked = (target, world.now, times + 1)
        look.memory[case.facts.id] = replace(known, prepare_asked=asked)
        yield do.Prepare(case.facts.id)


def _scale(
    case: _Case, allowed: int, free: Iterator[Place], world: World, look: Look
) -> Iterator[do.Action]:
    facts, settled, decision = case.facts, case.settled, case.decision
    assert decision is not None
    wanted = min(decision.replicas, allowed)
    living = case.living
    todo = _plan(case, wanted)
    rows = {r.id: r for r in living}
    has = sum(r.state != ReplicaState.DRAINING for r in living)
    since = look.memory[facts.id].surge_since
    patient = since is None or look.now - since <= TURN_S  # then nobody can make room
    idle = not case.lane.waiting + case.lane.running
    if todo.start and allowed <= has and (idle or not patient):
        todo = replace(todo, drain=[*todo.drain, *in_place(living, facts.goal)])
    waits = bool(todo.start) and has >= max(wanted, allowed)  # to take the others' place
    if waits:
        look.decided[facts.id] = replace(look.decided[facts.id], change_waits=True)
    if todo != Plan() or wanted < decision.replicas:
        yield from _told(case, has, wanted, waits, look)
    for name in todo.keep:
        yield from order(rows[name], drain=False)
    starts: list[int] = []
    if not _backs_off(settled, world.now):
        starts += [facts.goal] * min(todo.start, allowed - has - len(todo.keep))
    yield from _start(case, [*starts, *stragglers(facts, settled, world)], free)
    yield from _stop(case, todo, rows)
    if not wanted and not living and case.lane.gate == "open":
        yield do.ScaleToZero(facts.lane, ())  # so that the next request wakes the scaler
    if not (wanted or living or facts.on_trial) and settled.status == Status.INITIALIZING:
        # Its start failed, and nobody waits for another one any more.
        yield do.Move(facts.id, settled.status, Event.LAST_REPLICA_GONE, decision.reason)


def _plan(case: _Case, wanted: int) -> Plan:
    facts, living = case.facts, case.living
    if facts.goal_lane == facts.lane or not (wanted or facts.on_trial):
        return plan(wanted, living, facts.goal)
    return plan_beside(wanted, living, facts.goal, facts.lane, trial=facts.on_trial)


def _told(case: _Case, has: int, wanted: int, waits: bool, look: Look) -> Iterator[do.Action]:
    """A decision becomes an event when it is new, not with each look that carries it out."""
    facts, decision = case.facts, case.decision
    assert decision is not None
    known, short = look.memory[facts.id], decision.replicas - wanted
    lacks = bool(short or waits)
    if known.told == (wanted, has, lacks) or (wanted == has and not lacks):
        return
    look.memory[facts.id] = replace(known, told=(wanted, has, lacks))
    reason = f"{has} → {wanted} replicas: {decision.reason}"
    if short and wanted < has:
        reason += "; it yields to others"
    elif short:
        reason += f"; it waits for {short} more: {full(look.holders, facts.tenant)}"
    elif waits:
        reason = f"The change waits for a place: {full(look.holders, facts.tenant)}"
    yield do.Note(facts.id, "scaled", reason, decision.inputs)


def _start(case: _Case, revisions: Sequence[int], free: Iterator[Place]) -> Iterator[do.Action]:
    facts, decision = case.facts, case.decision
    assert decision is not None
    moves = case.settled.status == Status.STANDBY
    for number, (revision, place) in enumerate(zip(revisions, free, strict=False), 1):
        if moves and revision == facts.goal:
            moves = False
            why = "its new base model is tried" if facts.on_trial else decision.reason
            yield do.Move(facts.id, Status.STANDBY, Event.REPLICA_STARTING, why)
        ordinal = facts.starts + number
        name = f"{facts.id.replace('dep-', 'rep-')}-{ordinal}"
        yield do.Intend(name, facts.id, ordinal, revision, place.host, place.slot)


def _stop(case: _Case, todo: Plan, rows: Mapping[str, ReplicaFacts]) -> Iterator[do.Action]:
    for name in todo.abort:
        yield do.Gone(name, case.facts.id, "not needed any more")
    orders = tuple(each for name in todo.drain for each in order(rows[name], drain=True))
    assert case.decision is not None
    if case.decision.replicas == 0 and orders:  # else it yields its place, work or not
        yield do.ScaleToZero(case.facts.lane, orders)
    else:
        yield from orders


def _backs_off(settled: Settled, now: float) -> bool:
    return settled.retry_at is not None and now < settled.retry_at
