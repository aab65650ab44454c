"""Points and series of charts: sums are kept, whatever is added when; unknown is not zero."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraplex import charts
from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.charts import columns, of_answer, percentiles
from loraplex.keys import Lane
from loraplex.messages import ReplicaReport, Vitals
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from loraplex.totals import Answer
from scheduler.charts import Sampler
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.scaling import Scaling

LANE = Lane("model", "dep")


def answer(**changes: Any) -> Answer:
    values: dict[str, Any] = {
        "status": "stop",
        "error": "",
        "queue_s": 0.5,
        "first_token_s": 0.75,
        "duration_s": 2.0,
        "prompt_tokens": 10,
        "completion_tokens": 20,
    }
    return Answer(**(values | changes))


@given(st.lists(st.tuples(st.integers(0, 599), st.floats(0.0, 100.0)), max_size=40))
def test_all_resolutions_have_the_same_sums(answers: list[tuple[int, float]]) -> None:
    found = {}
    for step_s in charts.KEPT_S:
        points: dict[int, charts.Figures] = {}
        for at, queue_s in answers:
            figures = of_answer(answer(queue_s=queue_s, duration_s=queue_s + 1), first=True)
            charts.add(points.setdefault(charts.begin(at, step_s), {}), figures)
        looked = dict.fromkeys(range(0, 600, step_s), float(step_s))
        shown = columns(0, 600, step_s, points.items(), looked)
        assert len(shown["time"]) == 600 // step_s
        requests = sum(value or 0 for value in shown["requests_per_s"]) * step_s
        assert requests == pytest.approx(len(answers), abs=0.01)
        found[step_s] = sum(figures["queue_s"]["sum"] for figures in points.values())
    assert found[charts.FINE_S] == pytest.approx(found[charts.COARSE_S])


def test_where_nobody_looked_nothing_is_known() -> None:
    shown = columns(100, 115, 5, [(105, of_answer(answer(), first=True))], {100: 5.0})
    assert shown["requests_per_s"] == [0.0, 0.2, None]
    assert shown["ready"] == shown["tokens_per_s"] == [0.0, None, None], "only its answer is known"
    assert shown["queue_s_mean"] == [None, 0.5, None], "no answer: no wait to tell of"


def test_averages_are_over_the_time_that_was_looked_at() -> None:
    """A replica that was there for a second of a minute is a sixtieth."""
    load = {"ready": 1.0, "served_s": 1.0, "utilization": 0.5, "cost": 60.0}
    shown = columns(0, 60, 60, [(0, load)], {0: 60.0})
    assert shown["ready"] == [pytest.approx(1 / 60, abs=1e-5)]
    assert shown["cost_per_h"] == [3600.0] and shown["utilization"] == [0.5]


def test_a_failed_answer_is_one() -> None:
    figures = of_answer(answer(status="error", error="x", first_token_s=None), first=False)
    assert (figures["answers"], figures["failed"], figures["requests"]) == (1, 1, 0)
    assert "first_token_s" not in figures


@given(st.lists(st.floats(0.0, 1000.0), min_size=1), st.floats(0.01, 1.0))
def test_percentiles_are_within_their_bucket(values: list[float], share: float) -> None:
    sums: charts.Figures = {}
    for value in values:
        charts.add(sums, of_answer(answer(queue_s=value, duration_s=value), first=True))
    found = percentiles(sums["queue_s"]["counts"], [share])[0]
    exact = sorted(values)[max(0, -(-int(share * 1e9) * len(values) // 10**9) - 1)]
    assert found is not None
    assert exact / 2 - 0.001 <= found <= 2 * exact + 0.001


def replica(name: str, generated: int, state: ReplicaState = ReplicaState.READY) -> ReplicaFacts:
    said = ReplicaReport(
        *(name, "ready", 0.0),
        capacity=8,
        generated=generated,
        steps=generated,
        vitals=Vitals("cpu", 0.5),
    )
    seen = SeenReplica(f"{name}:0", True, False, said)
    return ReplicaFacts(name, LANE, 1, state, "local", 0, 0.0, 0.0, None, seen)


def world(now: float, *replicas: ReplicaFacts, waiting: int = 0) -> World:
    facts = DeploymentFacts(
        *("dep", "chat", "dev", Status.READY, "", Scaling(), 0, LANE, {1: LANE}),
        *(1, 1, 1, 1, 0, None, 0),
    )
    seen = [each.seen for each in replicas if each.seen]
    lane = SeenLane(LANE, now, waiting, 0, 0.0, seen)
    return World(now, [facts], {"dep": list(replicas)}, {LANE: lane})


def looks(sampler: Sampler, *worlds: World) -> dict[tuple[str, int], charts.Figures]:
    found: dict[tuple[str, int], charts.Figures] = {}
    for each in worlds:
        found |= sampler.look(each)
    return found


def test_what_replicas_count_is_told_once() -> None:
    sampler = Sampler({"local": 3600.0})
    sampler.counts = {}
    found = looks(
        sampler,
        world(100.0),
        world(101.0, replica("a", 5)),
        world(102.0, replica("a", 9), replica("b", 1)),
        world(103.0, replica("a", 2), replica("b", 4)),  # a new process of a's name
        world(105.0),
    )
    point = found["dep", 100]
    assert point["generated"] == 5 + 4 + 1 + 2 + 3
    assert point["ready"] == pytest.approx(1 + 2 + 2)
    assert point["utilization"] == pytest.approx(0.5 * 3)
    assert point["cost"] == pytest.approx(5.0), "an hour costs 3600"
    assert found[charts.LOOKED, 100] == {"s": 3.0}


def test_the_next_leader_goes_on_counting() -> None:
    first, second = Sampler({}), Sampler({})
    first.counts = {}
    looks(first, world(100.0), world(101.0, replica("a", 5)))
    looks(first, world(105.0, replica("a", 6)))
    second.counts = first.complete_counts
    found = looks(second, world(107.0, replica("a", 9)), world(110.0, replica("a", 9)))
    assert found["dep", 105]["generated"] == 4, "of the point that was not complete, too"


@pytest.mark.parametrize("before", [0.0, -5000.0])
def test_a_replica_that_a_look_misses_is_not_counted_again(before: float) -> None:
    sampler = Sampler({})
    sampler.counts = {"a": (before, [40, 0, 0, 0])}
    found = looks(
        sampler,
        world(99.0),
        world(100.0, replica("a", 50)),
        world(101.0),
        world(102.0, replica("a", 53)),
        world(105.0),
    )
    assert found["dep", 100]["generated"] == 13


def test_who_remembers_nothing_counts_from_now() -> None:
    sampler = Sampler({})
    found = looks(sampler, world(100.0, replica("a", 500)), world(101.0, replica("a", 503)))
    found |= looks(sampler, world(105.0, replica("a", 503)))
    assert found["dep", 100]["generated"] == 3


def test_a_time_without_looks_is_not_told_of() -> None:
    sampler = Sampler({})
    sampler.counts = {}
    found = looks(sampler, world(100.0, replica("a", 1)), world(160.0, replica("a", 2)))
    found |= looks(sampler, world(165.0, replica("a", 2)))
    assert (charts.LOOKED, 160) not in found
    assert found["dep", 160]["ready"] == 0.0


def test_rest_leaves_no_points() -> None:
    found = looks(Sampler({}), world(100.0), world(101.0), world(106.0))
    assert set(found) == {(charts.LOOKED, 100)}
