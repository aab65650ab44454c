"""The laws that ours is compared with do what their documentation says. 16 slots: target 11.2."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.scaling import Law, Observation, Scaling
from scheduler.simulator.baselines import (
    BASELINES,
    fixed_cooldown,
    keda,
    knative,
    knative_delay,
    ray_serve,
)

Load = Callable[[int], int]
FREE = Scaling(min_replicas=0, max_replicas=100)


def seen(x: int, ready: int) -> Observation:
    return Observation(x, 0, ready, 0, slots=16, arrived=0, cold_start_s=60)


def answers(law: Law, load: Load, seconds: int, replicas: int = 0) -> list[int]:
    """One answer a second; what is asked for is ready in the next second."""
    memory: Any = None
    asked = []
    for now in range(seconds):
        decision, memory = law(FREE, seen(load(now), replicas), memory, float(now))
        replicas = decision.replicas
        asked.append(replicas)
    return asked


def steps(asked: list[int]) -> list[tuple[int, int]]:
    """(second, answer) wherever the answer changes."""
    return [(t, n) for t, n in enumerate(asked) if t == 0 or n != asked[t - 1]]


def until(end: int, x: int) -> Load:
    return lambda now: x if now < end else 0


@pytest.mark.parametrize("name", [n for n in BASELINES if n != "keda"])
def test_a_law_with_a_buffer_acts_at_once_at_zero(name: str) -> None:
    asked = answers(BASELINES[name], lambda now: int(now >= 701), 702)
    assert steps(asked) == [(0, 0), (701, 1)]


def test_keda_sees_work_only_when_it_polls() -> None:
    assert steps(answers(keda, lambda now: int(now >= 31), 65)) == [(0, 0), (60, 1)]


def test_keda_wakes_no_sooner_where_nothing_called_it_while_it_slept() -> None:
    _, memory = keda(FREE, seen(0, 0), None, 0.0)
    late, memory = keda(FREE, seen(1, 0), memory, 1000.0)
    polled, _ = keda(FREE, seen(1, 0), memory, 1020.0)
    assert (late.replicas, polled.replicas) == (0, 1)


def test_knative_follows_the_mean_of_a_minute() -> None:
    asked = answers(knative, lambda now: 11 if now < 200 else 22, 400)
    # 22 are 1.96 targets: 2 / 1 is over the panic threshold once the mean of 6 s is above 11.2
    assert asked[199] == 1 and asked[203] == 2 and asked[-1] == 2


def test_knative_panics_at_twice_its_capacity_and_not_below() -> None:
    calm = answers(knative, lambda now: 44 if now < 100 else 56, 130, replicas=4)
    panic = answers(knative, lambda now: 44 if now < 100 else 112, 130, replicas=4)
    assert calm[99] == 4 and calm[110] == 5 and max(calm) == 5
    assert panic[107] == 10  # the mean of 6 s; that of a minute would say 5


def test_knative_never_scales_down_in_panic_and_for_a_window_after_it() -> None:
    asked = answers(knative, lambda t: 100 if 100 <= t < 110 else 5, 300)
    top = max(asked)
    fell = next(t for t in range(110, 300) if asked[t] < top)
    assert top == 9 and fell > 160 and asked[-1] == 1


def test_knative_halves_at_most() -> None:
    asked = answers(knative, until(100, 160), 400)
    downs = [(a, b) for a, b in itertools.pairwise(asked) if b < a]
    assert downs and all(b >= a // 2 or (a, b) == (1, 0) for a, b in downs)


def test_knative_keeps_the_last_replica_for_the_window_and_the_grace_period() -> None:
    assert steps(answers(knative, until(100, 5), 300)) == [(0, 1), (190, 0)]


def test_knative_delay_holds_the_highest_answer_for_300_s() -> None:
    asked = answers(knative_delay, until(100, 5), 600)
    assert steps(asked)[0] == (0, 1) and 480 <= steps(asked)[1][0] <= 492


def test_knative_found_with_several_replicas_keeps_them_for_a_window() -> None:
    asked = answers(knative, lambda now: 0, 100, replicas=4)
    assert set(asked[:60]) == {4} and asked[70] < 4


@pytest.mark.parametrize("end", [61, 75, 89])
def test_keda_goes_to_zero_300_s_after_the_last_poll_that_found_work(end: int) -> None:
    assert steps(answers(keda, until(end, 5), 500)) == [(0, 1), (360, 0)]


@pytest.mark.parametrize(("x", "wanted"), [(22, 2), (24, 2), (25, 3), (20, 2), (11, 2)])
def test_the_hpa_tolerates_a_tenth_and_waits_before_it_goes_down(x: int, wanted: int) -> None:
    asked = answers(keda, lambda now: 22 if now < 60 else x, 340)
    assert asked[59] == 2 and asked[339] == wanted


def test_the_hpa_goes_down_after_300_s() -> None:
    asked = answers(keda, lambda now: 22 if now < 60 else 5, 400)
    assert steps(asked)[-1] == (353, 1)  # its syncs stand at 7.5 + 15 k seconds


def test_the_hpa_doubles_or_adds_four_per_sync() -> None:
    asked = answers(keda, lambda now: 400, 60)
    assert steps(asked) == [(0, 1), (8, 5), (23, 10), (38, 20), (53, 36)]


def test_ray_serve_waits_30_s_up() -> None:
    asked = answers(ray_serve, lambda now: 100, 120)
    # pushes come each 10 s: more are wanted from 10 on
    assert steps(asked) == [(0, 1), (40, 9)]


def test_ray_serve_waits_600_s_down_and_reaches_zero_only_from_one() -> None:
    asked = answers(ray_serve, until(100, 22), 1600)
    # 22 need 2; from 120 on the mean of 30 s needs 1, from 130 on none
    assert steps(asked) == [(0, 1), (40, 2), (720, 1), (1320, 0)]


def test_ray_serve_starts_to_wait_anew_when_the_direction_flips() -> None:
    asked = answers(ray_serve, lambda now: 5 if now < 400 or now >= 460 else 0, 1100, replicas=2)
    assert 0 not in asked and asked[599] == 2 and asked[-1] == 1


@pytest.mark.parametrize("seconds", [60, 600, 3600])
def test_a_fixed_cooldown_keeps_what_was_needed(seconds: int) -> None:
    asked = answers(fixed_cooldown(seconds), lambda now: {0: 33, 1: 16}.get(now, 0), seconds + 5)
    assert steps(asked) == [(0, 3), (seconds, 1), (seconds + 1, 0)]


@pytest.mark.parametrize("name", BASELINES)
@given(
    low=st.integers(0, 3),
    spread=st.integers(0, 5),
    start=st.integers(0, 9),
    calls=st.lists(st.tuples(st.floats(0, 400), st.integers(0, 300)), min_size=1, max_size=60),
)
def test_no_law_leaves_the_bounds(
    name: str, low: int, spread: int, start: int, calls: list[tuple[float, int]]
) -> None:
    cfg, memory, now, replicas = Scaling(low, max(1, low + spread)), None, 0.0, start
    for gap, x in calls:
        now += gap
        decision, memory = BASELINES[name](cfg, seen(x, replicas), memory, now)
        replicas = decision.replicas
        assert cfg.min_replicas <= replicas <= cfg.max_replicas


@pytest.mark.parametrize("name", BASELINES)
def test_a_law_is_a_function_of_what_it_is_given(name: str) -> None:
    law, memory = BASELINES[name], None
    for now in range(0, 2000, 7):
        args = (FREE, seen((now * 37) % 91, 2), memory, float(now))
        assert law(*args) == law(*args)
        _, memory = law(*args)
