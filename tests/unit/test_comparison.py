"""Recorded traffic under other laws."""

from loraplex.messages import Traffic
from scheduler.comparison import OURS, arrivals_of, compare
from scheduler.scaling import Scaling
from scheduler.simulator.baselines import BASELINES


def test_traffic_of_all_replicas_is_put_in_order_and_begins_at_its_first_request() -> None:
    recorded = [Traffic([(105.0, 9, 20, 2.5)]), Traffic([(100.0, 9, 10, 1.0), (107.5, 1, 1, 0.0)])]
    arrivals = arrivals_of(recorded)
    assert [(a.at, a.hold_s) for a in arrivals] == [(0.0, 1.0), (5.0, 2.5), (7.5, 0.001)]
    assert arrivals_of([]) == []


def test_only_the_latest_day_is_run_again() -> None:
    recorded = [Traffic([(0.0, 1, 1, 1.0), (10.0, 1, 1, 1.0), (86_405.0, 1, 1, 1.0)])]
    assert [a.at for a in arrivals_of(recorded)] == [0.0, 86_395.0]


def test_each_law_is_said_what_it_would_have_cost_and_ours_is_first() -> None:
    """A request each ten minutes, a cold start of 20 s: who keeps replicas pays, who doesn't lets
    wait."""
    arrivals = arrivals_of([Traffic([(600.0 * i, 10, 10, 3.0) for i in range(12)])])
    found = compare(arrivals, Scaling(cooldown_s=60), 16, 20.0, now=1.0)
    laws = {law.law: law for law in found.laws}
    assert list(laws) == [OURS, *BASELINES]
    assert (found.requests, found.seconds, found.error) == (12, 6600.0, "")
    assert laws["cooldown_3600"].starts == 1
    assert laws["cooldown_3600"].replica_seconds > 3 * laws["modal_like"].replica_seconds
    assert laws["modal_like"].starts == 12
    assert laws["modal_like"].wait_p50_s > 19 > laws["cooldown_3600"].wait_p50_s
    ours, modal = laws[OURS], laws["modal_like"]  # after eight gaps it expects the next request
    assert ours.within_target > modal.within_target == 0.0
    assert ours.replica_seconds < modal.replica_seconds


def test_too_little_traffic_is_said_so() -> None:
    found = compare(arrivals_of([Traffic([(1.0, 1, 1, 1.0)])]), Scaling(), 16, 5.0, now=1.0)
    assert found.laws == [] and "Only 1 requests" in found.error
