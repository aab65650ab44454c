"""Lanes that take no more requests: what runs is finished, what waits is served elsewhere or
answered, then they are forgotten. Pure."""

from collections.abc import Iterator, Sequence

from loraplex.broker.interface import SeenLane
from loraplex.keys import Lane
from loraplex.not_serving import not_serving
from loraplex.replica_state import ReplicaState
from loraplex.status import ADMITTING, Status
from scheduler import actions as do
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.settle import Settled
from scheduler.starts import MOST_FAILED_STARTS


def order(replica: ReplicaFacts, *, drain: bool) -> Iterator[do.Order]:
    if replica.seen is not None and replica.seen.alive:
        yield do.Order(replica.id, replica.lane, replica.seen.incarnation, drain)


def retire(facts: DeploymentFacts, settled: Settled, world: World) -> Iterator[do.Action]:
    """Lanes of former base models: take no more (senders look again where the deployment serves
    now), serve what was taken, forget. `stragglers` says what must be started for it."""
    for lane, revisions in facts.retiring.items():
        seen = world.lanes.get(lane)
        if seen is None:
            continue
        living = [r for r in settled.living if r.lane == lane]
        if seen.gate != "shut":
            reason = f"Deployment {facts.name!r} serves another base model now. Send it again."
            yield do.ShutGate(lane, reason)
        if _ownerless(seen, living) > 0:
            yield from _serve_on(facts, settled, lane, living)
            continue
        for replica in living:
            yield from _end(replica, facts, "nothing waits for it any more")
        kept = {facts.served, facts.target} if settled.status != Status.DELETED else set()
        if (
            not (living or seen.running or seen.usage or kept & {*revisions})
            and seen.gate == "shut"
        ):
            yield do.ForgetLane(lane, facts.id, revisions)
    yield from _unused(facts, settled)


def stragglers(facts: DeploymentFacts, settled: Settled, world: World) -> Iterator[int]:
    """Former revisions of which a replica is needed: jobs wait on their lanes, and nobody is there.

    Their replicas died, a sender had looked just before the base model changed, or another one is
    still on trial."""
    former = facts.retiring
    if facts.on_trial:
        former[facts.lane] = [facts.revision]
    for lane, revisions in former.items():
        seen = world.lanes.get(lane)
        living = [r for r in settled.living if r.lane == lane]
        if seen and not living and _ownerless(seen, living) > 0 and _worth(settled, lane):
            yield max(revisions)


def _ownerless(lane: SeenLane, living: Sequence[ReplicaFacts]) -> int:
    """Jobs that wait, or that a dead replica ran."""
    return lane.waiting + lane.running - sum(r.running for r in living if r.alive)


def _worth(settled: Settled, lane: Lane) -> bool:
    failed = settled.remembered.failed_stragglers.get(lane, 0)
    return settled.status in ADMITTING and failed < MOST_FAILED_STARTS


def _serve_on(
    facts: DeploymentFacts, settled: Settled, lane: Lane, living: Sequence[ReplicaFacts]
) -> Iterator[do.Action]:
    if not _worth(settled, lane):
        if settled.status in ADMITTING:
            code = "deployment_changed"
            reason = f"Deployment {facts.name!r} has changed. Send it again."
        else:
            code = f"deployment_{settled.status}"
            reason = not_serving(facts.name, settled.status, settled.reason)
        yield do.AnswerStranded(lane, code, reason)
        for replica in living:
            yield from _end(replica, facts, reason)
    elif all(r.state == ReplicaState.DRAINING for r in living):
        for replica in living[:1]:
            yield from order(replica, drain=False)


def _end(replica: ReplicaFacts, facts: DeploymentFacts, reason: str) -> Iterator[do.Action]:
    if replica.state == ReplicaState.STARTING:
        yield do.Gone(replica.id, facts.id, reason)
    elif replica.state == ReplicaState.READY:
        yield from order(replica, drain=True)


def _unused(facts: DeploymentFacts, settled: Settled) -> Iterator[do.Retire]:
    """Former revisions on lanes that go on. One that is newer than the target may be a change that
    this look has seen by half."""
    retiring = facts.retiring
    used = {facts.revision, facts.goal, facts.served, *(r.revision for r in settled.living)}
    unused = [
        number
        for number, lane in facts.lanes.items()
        if number < facts.target and number not in used and lane not in retiring
    ]
    if unused:
        yield do.Retire(facts.id, unused)


def wind_down(facts: DeploymentFacts, settled: Settled, lane: SeenLane) -> Iterator[do.Action]:
    """Stopped, Errored or Deleted: answer what nobody runs, let the rest finish, stop."""
    reason = not_serving(facts.name, settled.status, settled.reason)
    if (lane.gate, lane.gate_reason) != ("shut", reason) and facts.lanes:
        yield do.ShutGate(facts.lane, reason)
    for replica in settled.living:
        if replica.lane not in facts.retiring:
            yield from _end(replica, facts, f"deployment is {settled.status}")
    if lane.waiting or lane.running:
        yield do.AnswerStranded(facts.lane, f"deployment_{settled.status}", reason)
        return
    left = settled.living or facts.retiring or not facts.lanes or lane.usage
    if settled.status == Status.DELETED and not left:
        for number, other in facts.lanes.items():  # of a change that was not rolled out
            if other != facts.lane:
                yield do.ForgetLane(other, facts.id, [number])
        yield do.ForgetLane(facts.lane, facts.id)
