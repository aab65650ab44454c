"""The scaling law, by cases and properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.keep_alive import FEW, SHORTEST_GAP_S, KeepAlive, learn
from scheduler.law import Memory, decide
from scheduler.scaling import Observation, Scaling

BOUNDS = Scaling(min_replicas=0, max_replicas=4, cooldown_s=600, threshold=8)
IDLE = Observation(0, 0, ready=0, starting=0, slots=8, arrived=0, cold_start_s=10.0)


def at_rest(now: float = 0.0, arrived: int = 0) -> Memory:
    """Of a deployment to which nothing else comes just now."""
    return Memory(now, arrived, arrived)


def test_from_zero_at_once() -> None:
    one = replace(IDLE, waiting=1, arrived=1)
    decision, _ = decide(BOUNDS, one, at_rest(), now=1)
    assert decision.replicas == 1


def test_no_second_replica_for_a_backlog_that_is_gone_before_it_comes() -> None:
    """Twelve requests of 5 s each over 8 slots are done in 10 s, and a start takes 10."""
    short = replace(IDLE, waiting=4, running=8, ready=1, arrived=12)
    decision, _ = decide(BOUNDS, short, at_rest(arrived=12), now=1)
    assert decision.replicas == 1
    assert "before another would be ready" in decision.reason


def test_more_for_a_backlog_that_outlasts_a_start() -> None:
    long = replace(IDLE, waiting=400, running=8, ready=1, arrived=408)
    decision, _ = decide(BOUNDS, long, at_rest(), now=1)
    assert decision.replicas == 4
    assert "max_replicas is 4" in decision.reason


def test_an_absurd_target_wait_is_no_reason_to_fail() -> None:
    """Of one deployment: it would end the look at all others."""
    absurd = replace(BOUNDS, target_wait_s=1e-310)
    decision, _ = decide(absurd, replace(IDLE, waiting=400, ready=1, arrived=400), at_rest(), now=1)
    assert decision.replicas == absurd.max_replicas


def test_arrivals_that_one_replica_cannot_carry_bring_another() -> None:
    """Two a second, each for 5 s, keep 10 of 8 slots busy."""
    memory = at_rest()
    for second in range(1, 60):
        seen = replace(IDLE, running=8, ready=1, arrived=2 * second)
        decision, memory = decide(BOUNDS, seen, replace(memory, held_s=500.0, held=100.0), second)
    assert decision.replicas == 2


def test_a_used_replica_is_kept_as_long_as_a_cold_start_is_worth_but_not_longer() -> None:
    _, memory = decide(BOUNDS, replace(IDLE, running=1, ready=1, arrived=1), at_rest(), now=100)
    idle = replace(IDLE, ready=1, arrived=1)
    worth_s = IDLE.cold_start_s + BOUNDS.cold_start_weight * 20.0
    kept, memory = decide(BOUNDS, idle, memory, now=100 + worth_s - 1)
    gone, _ = decide(BOUNDS, idle, memory, now=100 + worth_s)
    assert (kept.replicas, gone.replicas) == (1, 0)
    assert "kept for another 1 s" in kept.reason


def test_the_cooldown_is_the_longest_that_an_idle_replica_is_kept() -> None:
    short = replace(BOUNDS, cooldown_s=20)
    _, memory = decide(short, replace(IDLE, running=1, ready=1, arrived=1), at_rest(), now=100)
    idle = replace(IDLE, ready=1, arrived=1)
    kept, memory = decide(short, idle, memory, now=119)
    gone, _ = decide(short, idle, memory, now=120)
    assert (kept.replicas, gone.replicas) == (1, 0)


def test_without_memory_what_exists_counts_as_needed_just_now() -> None:
    two = replace(IDLE, ready=2)
    decision, _ = decide(BOUNDS, two, None, now=1000)
    assert decision.replicas == 2


def test_min_replicas_hold_without_work() -> None:
    decision, _ = decide(replace(BOUNDS, min_replicas=2), replace(IDLE, ready=2), at_rest(), now=1)
    assert decision.replicas == 2
    assert "min_replicas is 2" in decision.reason


@given(
    cooldown_s=st.sampled_from([0.0, 10.0, 3600.0]),
    low=st.integers(0, 4),
    spread=st.integers(0, 4),
    looks=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 4), st.integers(1, 90)),
        min_size=1,
    ),
)
def test_never_outside_the_bounds_and_never_zero_with_work(
    cooldown_s: float, low: int, spread: int, looks: list[tuple[int, int, int, int]]
) -> None:
    bounds = Scaling(low, max(1, low + spread), cooldown_s, 4)
    memory: Memory | None = None
    now, arrived = 0.0, 0
    for waiting, running, ready, passed in looks:
        now, arrived = now + passed, max(arrived, waiting + running) + passed % 3
        seen = Observation(waiting, running, ready, 0, 8, arrived, 10.0)
        decision, memory = decide(bounds, seen, memory, now)
        assert bounds.min_replicas <= decision.replicas <= bounds.max_replicas
        assert decision.replicas > 0 or waiting + running == 0


@pytest.mark.parametrize(
    ("gaps", "keeps", "lets_go"),
    [
        ([20.0] * 20, 19, 31),  # used each 20 s: kept between uses, let go soon after
        ([900.0] * 20, 0, 200),  # each quarter of an hour: not kept meanwhile …
    ],
)
def test_keeping_is_learned_from_gaps(gaps: list[float], keeps: int, lets_go: int) -> None:
    policy = learn(gaps, worth_s=110.0, cold_start_s=10.0, longest_s=3600.0)
    assert policy.keeps(keeps) and not policy.keeps(lets_go)


def test_regular_use_is_expected() -> None:
    """… but back before it is used again."""
    policy = learn([900.0] * 20, worth_s=110.0, cold_start_s=10.0, longest_s=3600.0)
    assert not policy.keeps(800) and policy.keeps(890) and not policy.keeps(1000)


@given(
    gaps=st.lists(st.floats(SHORTEST_GAP_S, 1e5), max_size=40),
    worth_s=st.floats(1, 1e4),
    cold_start_s=st.floats(0.1, 300),
    longest_s=st.floats(0, 7200),
)
def test_no_idle_replica_outlasts_the_cooldown(
    gaps: list[float], worth_s: float, cold_start_s: float, longest_s: float
) -> None:
    policy = learn(gaps, worth_s, cold_start_s, longest_s)
    assert policy.keep_s <= longest_s
    assert policy.until_s - policy.from_s <= longest_s + 1e-6
    if len(gaps) < FEW:
        assert policy == KeepAlive(min(worth_s, longest_s))
