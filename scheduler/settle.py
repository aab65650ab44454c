"""Facts → what has become of a deployment's replicas, and with them of its status. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from loraplex.broker.interface import SeenLane
from loraplex.replica_state import ReplicaState
from loraplex.status import ADMITTING, Event, Status, next_status
from scheduler import actions as do
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.judge import Limits, Verdict, judge
from scheduler.starts import MOST_FAILED_STARTS, Remembered, back_off_s, with_start

_HAD_REPLICAS = (Status.READY, Status.UPDATING)
_LONGEST_REASON = 2000


@dataclass(slots=True)
class Settled:
    """A deployment after its facts were taken note of; `actions` make the rows say so."""

    facts: DeploymentFacts  # as they are after `actions`
    status: Status
    reason: str
    failed_starts: int
    retry_at: float | None
    remembered: Remembered
    living: list[ReplicaFacts] = field(default_factory=list)
    actions: list[do.Action] = field(default_factory=list)
    given_up: str = ""  # why there is no use in another start


def settle(
    facts: DeploymentFacts,
    replicas: Sequence[ReplicaFacts],
    world: World,
    known: Remembered,
    limits: Limits,
) -> Settled:
    settled = Settled(
        *(facts, facts.status, facts.reason, facts.failed_starts, facts.retry_at, known)
    )
    silent: dict[str, float] = {}
    for replica in replicas:
        if not replica.alive:
            silent[replica.id] = known.silent_since.get(replica.id, world.now)
        silent_s = world.now - silent.get(replica.id, world.now)
        heard = world.driver_heard
        verdict = judge(replica, world.now, silent_s, limits, driver_heard=heard)
        _take_note(settled, facts, replica, verdict, world.now)
    told = settled.remembered.split_told & {r.id for r in replicas}
    if silent or known.silent_since or told != settled.remembered.split_told:
        settled.remembered = replace(settled.remembered, silent_since=silent, split_told=told)
    for lane in {facts.lane, *facts.lanes.values()}:
        if lane in world.lanes:
            settled.actions += _strangers(world.lanes[lane], {r.id for r in replicas})
    tries = settled.remembered.failed_stragglers
    former = {lane for lane in facts.lanes.values() if lane != facts.goal_lane}
    if left := {lane for lane in tries if lane not in former}:
        tries = {lane: n for lane, n in tries.items() if lane not in left}
        settled.remembered = replace(settled.remembered, failed_stragglers=tries)
    _follow_lane(settled, facts, world)
    _move(settled, facts)
    return settled


def serving(replicas: list[ReplicaFacts], facts: DeploymentFacts) -> list[ReplicaFacts]:
    """Those on lanes that requests go to, or will."""
    retiring = facts.retiring
    return [r for r in replicas if r.lane not in retiring] if retiring else replicas


def _take_note(
    settled: Settled,
    facts: DeploymentFacts,
    replica: ReplicaFacts,
    verdict: Verdict | None,
    now: float,
) -> None:
    if verdict is None:
        _note_split(settled, facts, replica)
        told = replica.seen is not None and replica.alive and replica.seen.ordered_to_drain
        if told and replica.state != ReplicaState.DRAINING:
            # A crash came between the order and the row.
            replica = replace(replica, state=ReplicaState.DRAINING)
        settled.living.append(replica)
    elif verdict.what == "ready":
        settled.living.append(replace(replica, state=ReplicaState.READY))
        serves = replica.revision == facts.goal
        if serves:
            settled.failed_starts, settled.retry_at = 0, None
            starts = with_start(settled.remembered.starts, _start_s(replica, now))
            settled.remembered = replace(settled.remembered, starts=starts)
        served = facts.goal if serves else 0
        settled.actions.append(do.BecameReady(replica.id, facts.id, served))
    elif verdict.what == "failed" and replica.revision != facts.goal:
        # Of a former revision, started for what waits on its lane: it says nothing of this one.
        tries = dict(settled.remembered.failed_stragglers)
        tries[replica.lane] = (
            MOST_FAILED_STARTS if verdict.permanent else tries.get(replica.lane, 0) + 1
        )
        settled.remembered = replace(settled.remembered, failed_stragglers=tries)
        settled.actions.append(do.Gone(replica.id, facts.id, verdict.reason[-_LONGEST_REASON:]))
    elif verdict.what == "failed":
        settled.failed_starts += 1
        settled.retry_at = now + back_off_s(settled.failed_starts)
        if verdict.permanent or settled.failed_starts >= MOST_FAILED_STARTS:
            settled.given_up = verdict.reason[-_LONGEST_REASON:]
        settled.actions.append(
            do.Gone(
                *(replica.id, facts.id, verdict.reason[-_LONGEST_REASON:]),
                do.FailedStarts(settled.failed_starts, settled.retry_at, facts.target),
            )
        )
    elif verdict.what == "gone":
        settled.actions.append(do.Gone(replica.id, facts.id, verdict.reason[-_LONGEST_REASON:]))
    else:
        settled.living.append(replica)
        if verdict.what == "ask":
            settled.actions.append(do.Ask(replica.id, facts.id))
        elif replica.seen is not None:
            order = do.Order(replica.id, replica.lane, replica.seen.incarnation, drain=True)
            settled.actions.append(order)


def _start_s(replica: ReplicaFacts, now: float) -> float:
    """From asking for it until it was ready: as it says itself, for this look may come later."""
    split = replica.seen.report.cold_start if replica.seen is not None else None
    if split is None or not split.spawn_s:
        return now - replica.created_at
    return split.spawn_s + split.import_s + split.load_s


def _note_split(settled: Settled, facts: DeploymentFacts, replica: ReplicaFacts) -> None:
    """Once it has given its first token, a replica tells how its cold start went."""
    known = settled.remembered
    split = replica.seen.report.cold_start if replica.seen is not None else None
    if split is None or not split.first_token_s or replica.id in known.split_told:
        return
    settled.remembered = replace(
        known,
        first_tokens=with_start(known.first_tokens, split.first_token_s),
        split_told=known.split_told | {replica.id},
    )
    parts = {name: getattr(split, name) for name in split.__struct_fields__}
    text = ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ')} {s:.3f} s" for name, s in parts.items()
    )
    settled.actions.append(do.Note(facts.id, "cold_start", f"{replica.id}: {text}", parts))


def _strangers(lane: SeenLane, known: set[str]) -> list[do.Action]:
    """Reports that nobody will renew: of replicas that are gone, of earlier incarnations."""
    newest = {r.report.replica: r.incarnation for r in lane.by_age()}
    return [
        do.ForgetReplica(lane.lane, r.incarnation)
        for r in lane.replicas
        if not r.alive
        and (r.report.replica not in known or newest[r.report.replica] != r.incarnation)
    ]


def _follow_lane(settled: Settled, facts: DeploymentFacts, world: World) -> None:
    """Requests go where the goal serves, once it can carry them; at once if nothing has served."""
    if facts.revision == facts.goal or settled.status not in ADMITTING:
        return
    old = [r for r in settled.living if r.revision != facts.goal and r.lane == facts.lane]
    new = [r for r in settled.living if r.revision == facts.goal]
    ready = sum(r.state == ReplicaState.READY for r in new)
    carried = sum(r.state == ReplicaState.READY for r in old)
    if facts.lane == facts.goal_lane:  # one after the other, see `plan`
        rolled_out = ready > 0 and all(r.state == ReplicaState.DRAINING for r in old)
    else:
        rolled_out = ready >= max(1, carried, facts.scaling.min_replicas)
    if not rolled_out and (old or facts.on_trial):
        return
    if facts.goal_lane in world.lanes and world.lanes[facts.goal_lane].gate == "shut":
        settled.actions.append(do.OpenGate(facts.goal_lane))  # it was used before
    settled.actions.append(do.Serve(facts.id, facts.goal, facts.goal_lane.base_model))


def _move(settled: Settled, facts: DeploymentFacts) -> None:
    event, reason = _event(settled, facts)
    if event is None:
        return
    after = next_status(settled.status, event)
    if after is None:
        return
    if event is Event.ROLLOUT_FAILED:
        back = (facts.target, facts.served, reason)
        settled.actions.append(do.TakeBack(facts.id, settled.status, *back))
    else:
        settled.actions.append(do.Move(facts.id, settled.status, event, reason))
    settled.status, settled.reason = after, reason


def _event(settled: Settled, facts: DeploymentFacts) -> tuple[Event | None, str]:
    status = settled.status
    living = serving(settled.living, facts)
    ready = [r for r in living if r.state == ReplicaState.READY]
    old = [r for r in living if r.revision != facts.target and r.state != ReplicaState.DRAINING]
    if settled.given_up:
        return _gave_up(settled, facts, ready)
    if status == Status.STANDBY and facts.prepared < facts.goal:
        return Event.ARTEFACTS_MISSING, "its base model is checked and fetched"
    if not living and (settled.failed_starts == 0 or status in _HAD_REPLICAS):
        if status in _HAD_REPLICAS and settled.failed_starts:
            # They were of scaling up further: they must not hold up the first one.
            settled.failed_starts, settled.retry_at = 0, None
            settled.actions.append(do.Forgive(facts.id))
        return Event.LAST_REPLICA_GONE, "no replica is left"
    if status == Status.UPDATING:
        if ready and not old and facts.revision == facts.target:
            return Event.ROLLED_OUT, f"{ready[0].id} and all others have the change"
        return None, ""
    if status == Status.READY and any(r.revision != facts.target for r in ready):
        return Event.CHANGE_ROLLOUT, "a change needs new replicas"
    if ready:
        return Event.REPLICA_READY, f"{ready[0].id} is ready"
    return None, ""


def _gave_up(
    settled: Settled, facts: DeploymentFacts, ready: Sequence[ReplicaFacts]
) -> tuple[Event | None, str]:
    """There is no use in starting the goal again: go back to what served last, if that is another
    one; if it is the same, what serves goes on."""
    known = facts.served not in (0, facts.goal) and facts.served in facts.lanes
    if known and next_status(settled.status, Event.ROLLOUT_FAILED) is not None:
        settled.facts = replace(facts, target=facts.served)
        settled.failed_starts, settled.retry_at = 0, None
        # What came to its lane meanwhile can't be served either.
        tries = {**settled.remembered.failed_stragglers, facts.goal_lane: MOST_FAILED_STARTS}
        settled.remembered = replace(settled.remembered, failed_stragglers=tries)
        return Event.ROLLOUT_FAILED, f"The change was taken back: {settled.given_up}"
    if ready:
        return None, ""
    return Event.START_FAILED, settled.given_up
