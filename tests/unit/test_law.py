"""The scaling law and the plan, by tables and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.law import Memory, Observation, Scaling, decide
from scheduler.plan import ReplicaView, plan

BOUNDS = Scaling(min_replicas=0, max_replicas=4, cooldown_s=60, threshold=8)


@pytest.mark.parametrize(
    ("waiting", "running", "wanted"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (8, 0, 1), (9, 0, 2), (4, 5, 2), (1000, 0, 4)],
)
def test_enough_replicas_for_the_load(waiting: int, running: int, wanted: int) -> None:
    decision, _ = decide(BOUNDS, Observation(waiting, running, 0), Memory(), now=0)
    assert decision is not None and decision.replicas == wanted


def test_no_observation_is_not_zero() -> None:
    memory = Memory((5.0,))
    assert decide(BOUNDS, None, memory, now=1000) == (None, memory)


def test_a_level_is_kept_for_the_cooldown_and_no_longer() -> None:
    _, memory = decide(BOUNDS, Observation(20, 0, 0), Memory(), now=100)
    idle = Observation(0, 0, 3)
    kept, _ = decide(BOUNDS, idle, memory, now=159)
    gone, _ = decide(BOUNDS, idle, memory, now=160)
    assert (kept and kept.replicas, gone and gone.replicas) == (3, 0)


def test_a_new_leader_without_memory_keeps_what_runs_for_a_cooldown() -> None:
    first, memory = decide(BOUNDS, Observation(0, 0, 2), None, now=1000)
    later, _ = decide(BOUNDS, Observation(0, 0, 2), memory, now=1060)
    assert (first and first.replicas, later and later.replicas) == (2, 0)


def test_min_replicas_hold_without_work() -> None:
    bounds = Scaling(2, 4, 60, 8)
    decision, _ = decide(bounds, Observation(0, 0, 2), Memory(), now=0)
    assert decision is not None and decision.replicas == 2
    assert "min_replicas" in decision.reason


@given(
    cooldown_s=st.sampled_from([0, 10]),
    low=st.integers(0, 4),
    spread=st.integers(0, 4),
    loads=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1),
)
def test_never_outside_the_bounds_and_never_zero_with_work(
    cooldown_s: int, low: int, spread: int, loads: list[tuple[int, int]]
) -> None:
    bounds = Scaling(low, max(1, low + spread), cooldown_s, 4)
    memory: Memory | None = None
    for now, (waiting, running) in enumerate(loads):
        decision, memory = decide(bounds, Observation(waiting, running, 0), memory, float(now))
        assert decision is not None
        assert bounds.min_replicas <= decision.replicas <= bounds.max_replicas
        assert decision.replicas > 0 or waiting + running == 0


VIEWS = st.lists(
    st.tuples(st.sampled_from(["starting", "ready", "draining"]), st.integers(0, 9)), max_size=8
).map(lambda rows: [ReplicaView(str(i), state, n) for i, (state, n) in enumerate(rows)])


@given(wanted=st.integers(0, 8), views=VIEWS)
def test_a_plan_leads_to_the_wanted_number(wanted: int, views: list[ReplicaView]) -> None:
    todo = plan(wanted, views)
    serving = sum(v.state != "draining" for v in views)
    after = serving + todo.start + len(todo.keep) - len(todo.drain) - len(todo.abort)
    assert after == wanted
    state = {v.id: v.state for v in views}
    assert {state[i] for i in todo.keep} <= {"draining"}
    assert {state[i] for i in todo.drain} <= {"ready"}
    assert {state[i] for i in todo.abort} <= {"starting"}
    growing = bool(todo.start or todo.keep)
    assert not (growing and (todo.drain or todo.abort))


def test_the_least_busy_replica_is_drained() -> None:
    views = [ReplicaView("a", "ready", 5), ReplicaView("b", "ready", 1)]
    assert plan(1, views).drain == ["b"]


def test_a_draining_replica_is_kept_before_one_is_started() -> None:
    todo = plan(2, [ReplicaView("a", "draining"), ReplicaView("b", "ready")])
    assert (todo.keep, todo.start) == (["a"], 0)
