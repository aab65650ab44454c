"""The loads that scaling laws are judged by, and the bounds of their cost."""

import itertools
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.elasticity import traces
from benchmarks.elasticity.clairvoyant import work_bound, zero_wait_bound
from benchmarks.elasticity.replica_model import hold_s
from benchmarks.elasticity.traces import Request, Trace

Range = tuple[float, float]
TUNING = {trace.name: trace for trace in traces.tuning()}
HELD_OUT = traces.held_out()


def gap_cv(trace: Trace) -> float:
    times = [request.at for request in trace.requests]
    gaps = [later - at for at, later in itertools.pairwise(times)]
    return statistics.pstdev(gaps) / statistics.mean(gaps)


def seconds(trace: Trace) -> Counter[int]:
    return Counter(int(request.at) for request in trace.requests)


@pytest.mark.parametrize(
    ("name", "hours", "rate", "cv", "empty"),
    [
        ("bursty", 4, (0.9, 2.2), (9, 15), (0.8, 0.95)),
        ("diurnal", 4, (3.9, 4.3), (1.5, 3.5), (0.1, 0.25)),
        ("poisson_low", 12, (0.0045, 0.0065), (0.85, 1.15), (0.99, 1)),
        ("hourly", 24, (0.0006, 0.0017), (1.2, 2.5), (0.99, 1)),
        ("flash_crowd", 1, (1.9, 2.4), (2, 3.2), (0.5, 0.6)),
        ("azure_conv", 3502 / 3600, (5.52, 5.54), (1.05, 1.12), (0, 0.02)),
        ("code_completion", 1, (2.1, 3.1), (10, 15), (0.65, 0.75)),
    ],
)
def test_statistics_of_a_tuning_load(
    name: str, hours: float, rate: Range, cv: Range, empty: Range
) -> None:
    trace = TUNING[name]
    empty_share = 1 - len(seconds(trace)) / trace.seconds
    assert trace.seconds == pytest.approx(hours * 3600) and not trace.held_out
    assert rate[0] <= len(trace.requests) / trace.seconds <= rate[1]
    assert cv[0] <= gap_cv(trace) <= cv[1]
    assert empty[0] <= empty_share <= empty[1]


def test_code_completion_reads_much_and_writes_little_in_clusters() -> None:
    requests = TUNING["code_completion"].requests
    assert 1400 <= statistics.median(r.prompt for r in requests) <= 1600
    assert 12 <= statistics.median(r.output for r in requests) <= 15
    assert 50 <= max(seconds(TUNING["code_completion"]).values()) <= 70


def test_a_flash_crowd_is_forty_times_as_many_for_five_minutes() -> None:
    crowd = [r for r in TUNING["flash_crowd"].requests if 1800 <= r.at < 2100]
    assert 0.9 <= len(crowd) / (20 * 300) <= 1.1


def test_the_names_are_those_of_the_traces() -> None:
    assert tuple(TUNING) == traces.TUNING
    assert tuple(trace.name for trace in HELD_OUT) == traces.HELD_OUT


def test_held_out_clients_differ_and_mostly_sleep() -> None:
    assert all(trace.held_out and trace.seconds == 86400 for trace in HELD_OUT)
    assert 200_000 <= sum(len(trace.requests) for trace in HELD_OUT) <= 800_000
    awake = [len({int(r.at // 600) for r in trace.requests}) / 144 for trace in HELD_OUT]
    assert statistics.median(awake) < 0.5


def test_a_fleet_by_zipf_is_carried_by_a_few() -> None:
    fleet = traces.zipf(43, 24)
    counts = sorted((len(trace.requests) for trace in fleet), reverse=True)
    idle = [1 - len({int(r.at // 600) for r in trace.requests}) / 144 for trace in fleet]
    assert 0.2 <= counts[0] / sum(counts) <= 0.5
    assert 0.6 <= sum(counts[:10]) / sum(counts) <= 0.95
    assert 0.65 <= statistics.median(idle) <= 0.92
    assert 1.5 <= sum(counts) / 86400 <= 2.5


@pytest.mark.parametrize("trace", [*TUNING.values(), *HELD_OUT, *traces.zipf(5, 1)])
def test_requests_are_sorted_within_the_horizon_and_bounded(trace: Trace) -> None:
    assert trace.requests == sorted(trace.requests, key=lambda r: r.at)
    assert all(0 <= r.at <= trace.seconds for r in trace.requests)
    assert all(1 <= r.prompt <= 16384 and 1 <= r.output <= 2048 for r in trace.requests)


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    assert traces.tuning() == list(TUNING.values())
    assert traces.held_out() == HELD_OUT
    assert traces.zipf(3, 1, 7) == traces.zipf(3, 1, 7)
    for again in traces.tuning(1):
        if again.name != "azure_conv":
            assert again != TUNING[again.name]
    assert traces.clients(1) == HELD_OUT[8:] != traces.clients(2)


def test_a_request_holds_its_slot_for_its_prefill_and_its_tokens() -> None:
    assert hold_s(Request(0, 4000, 100)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("jobs", "cost"),
    [
        ([], 0),
        ([(5, 10)], 10 + 60),
        ([(0, 10), (30, 10)], 10 + 20 + 10 + 60),  # a gap of 20 s: staying is cheaper
        ([(0, 10), (500, 10)], 10 + 10 + 2 * 60),  # a gap of 490 s: starting is
        ([(0, 10), (10, 10)], 20 + 60),  # no gap
        ([(0, 10), (0, 10)], 10 + 60),  # two slots
        ([(0, 10), (0, 10), (4, 10)], 14 + 60 + 6 + 60),  # a second level from 4 to 10
        ([(0, 10), (0, 20), (10, 10)], 20 + 60),  # an end frees the slot of a start
        ([(0, 100), (0, 5), (1, 4), (50, 10), (50, 10)], 100 + 60 + (4 + 45 + 10) + 60),
    ],
)
def test_zero_wait_bound_by_hand(jobs: list[tuple[float, float]], cost: float) -> None:
    assert zero_wait_bound(jobs, slots=2, cold_start_s=60) == pytest.approx(cost)


def test_work_bound_by_hand() -> None:
    assert work_bound([(0, 10), (3, 6)], slots=4) == 4


def test_a_job_without_a_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="holds its slot for 0"):
        zero_wait_bound([(1, 0)], 2, 60)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50)), max_size=40),
    slots=st.integers(1, 4),
)
def test_zero_wait_bound_agrees_with_counting_each_second(
    jobs: list[tuple[int, int]], slots: int
) -> None:
    cold_start_s, cost = 30, 0.0
    load = [sum(at <= t < at + hold for at, hold in jobs) for t in range(260)]
    for level in range(40):
        busy = [t for t, x in enumerate(load) if x > level * slots]
        gaps = [later - t - 1 for t, later in itertools.pairwise(busy)]
        cost += len(busy) + sum(min(gap, cold_start_s) for gap in gaps)
        cost += cold_start_s if busy else 0
    bound = zero_wait_bound(jobs, slots, cold_start_s)
    assert bound == pytest.approx(cost) and bound >= work_bound(jobs, slots) - 1e-9
