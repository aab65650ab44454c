"""Lanes that take no more requests: what runs is finished, what waits is answered, then they are
forgotten. Pure."""

from collections.abc import Iterator

from loraplex.broker.interface import SeenLane
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from scheduler import actions as do
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.refusal import refusal
from scheduler.settle import Settled


def order(replica: ReplicaFacts, *, drain: bool) -> Iterator[do.Order]:
    if replica.seen is not None and replica.seen.alive:
        yield do.Order(replica.id, replica.lane, replica.seen.incarnation, drain)


def retire(facts: DeploymentFacts, settled: Settled, world: World) -> Iterator[do.Action]:
    """Lanes of former base models: served to their end, then forgotten."""
    for revision, lane in facts.retiring:
        seen = world.lanes.get(lane)
        if seen is None:
            continue
        living = [r for r in settled.living if r.lane == lane]
        if seen.waiting == 0:
            for replica in living:
                if replica.state == ReplicaState.READY:
                    yield from order(replica, drain=True)
        if living:
            continue
        reason = f"Deployment {facts.name!r} serves another base model now. Send it again."
        if seen.gate != "shut":
            yield do.ShutGate(lane, reason)
        elif seen.waiting or seen.running:
            yield do.AnswerStranded(lane, "deployment_changed", reason)
        else:
            yield do.ForgetLane(lane, facts.id, revision)


def wind_down(facts: DeploymentFacts, settled: Settled, lane: SeenLane) -> Iterator[do.Action]:
    """Stopped, Errored or Deleted: answer what nobody runs, let the rest finish, stop."""
    reason = refusal(facts.name, settled.status, settled.reason)
    if (lane.gate, lane.gate_reason) != ("shut", reason):
        yield do.ShutGate(facts.lane, reason)
    for replica in settled.living:
        if replica.state == ReplicaState.STARTING:
            yield do.Gone(replica.id, facts.id, f"deployment is {settled.status}")
        elif replica.state == ReplicaState.READY:
            yield from order(replica, drain=True)
    if lane.waiting or lane.running:
        yield do.AnswerStranded(facts.lane, f"deployment_{settled.status}", reason)
        return
    left = settled.living or facts.retiring or facts.forgotten
    if settled.status == Status.DELETED and not left:
        yield do.ForgetLane(facts.lane, facts.id)
