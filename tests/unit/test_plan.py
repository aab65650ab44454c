"""How many there should be + what exists → which to start, keep, drain, abort."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loraplex.broker.interface import SeenReplica
from loraplex.keys import Lane
from loraplex.messages import ReplicaReport
from loraplex.replica_state import ReplicaState
from scheduler.facts import ReplicaFacts
from scheduler.plan import plan

LANE = Lane("org/model", "dep-1")
STATES = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING)


def replica(
    name: str, state: ReplicaState, running: int = 0, revision: int = 1, adapters: int = 0
) -> ReplicaFacts:
    report = ReplicaReport(name, "ready", 0.0, running=running, adapters=["a"] * adapters)
    seen = SeenReplica(f"{name}:0", True, state == ReplicaState.DRAINING, report)
    return ReplicaFacts(name, LANE, revision, state, "local", 0, 0.0, 0.0, None, seen)


REPLICAS = st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 9)), max_size=8).map(
    lambda rows: [replica(str(i), state, n) for i, (state, n) in enumerate(rows)]
)


@given(wanted=st.integers(0, 8), replicas=REPLICAS)
def test_a_plan_leads_to_the_wanted_number(wanted: int, replicas: list[ReplicaFacts]) -> None:
    todo = plan(wanted, replicas, target=1)
    serving = sum(r.state != ReplicaState.DRAINING for r in replicas)
    after = serving + todo.start + len(todo.keep) - len(todo.drain) - len(todo.abort)
    assert after == wanted
    state = {r.id: r.state for r in replicas}
    assert {state[i] for i in todo.keep} <= {ReplicaState.DRAINING}
    assert {state[i] for i in todo.drain} <= {ReplicaState.READY}
    assert {state[i] for i in todo.abort} <= {ReplicaState.STARTING}
    growing = bool(todo.start or todo.keep)
    assert not (growing and (todo.drain or todo.abort))


def test_the_least_busy_replica_is_drained_then_the_one_with_fewest_adapters() -> None:
    busy, idle = replica("a", ReplicaState.READY, 5), replica("b", ReplicaState.READY, 1)
    assert plan(1, [busy, idle], target=1).drain == ["b"]
    many = replica("c", ReplicaState.READY, 1, adapters=9)
    assert plan(1, [many, idle], target=1).drain == ["b"]


def test_a_draining_replica_is_kept_before_one_is_started() -> None:
    draining, ready = replica("a", ReplicaState.DRAINING), replica("b", ReplicaState.READY)
    todo = plan(2, [draining, ready], target=1)
    assert (todo.keep, todo.start) == (["a"], 0)


def test_a_change_is_rolled_out_one_by_one_and_never_below_what_serves() -> None:
    replicas = [replica(name, ReplicaState.READY) for name in "abc"]
    for turn in range(20):
        serving = [r for r in replicas if r.state == ReplicaState.READY]
        assert 3 <= len(serving) <= 4 and len(replicas) <= 4
        todo = plan(3, replicas, target=2)
        if {r.revision for r in replicas} == {2}:
            break
        replicas = [r for r in replicas if r.id not in todo.drain]  # drained and gone
        replicas = [replace(r, state=ReplicaState.READY) for r in replicas]
        new = [replica(f"{turn}{i}", ReplicaState.STARTING, revision=2) for i in range(todo.start)]
        replicas += new
    assert [r.revision for r in replicas] == [2, 2, 2]
