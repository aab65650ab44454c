"""Which fine-tuning jobs have places."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loraplex.entities.work import WorkState
from scheduler import actions as do
from scheduler.placement import Fleet, Place
from scheduler.trainings import (
    ASK_AGAIN_S,
    PAUSE_S,
    SILENT_S,
    TrainingFacts,
    TrainingRules,
    share_out,
)

NOW = 1000.0
FLEET = Fleet({"local": 2, "gpu": 2})
TWO = TrainingRules("local", 2)
WAITS = TrainingFacts("w", "a", WorkState.QUEUED, None, 10.0, None, 10.0)
RUNS = TrainingFacts("r", "a", WorkState.RUNNING, Place("local", 0), 1.0, 500.0, NOW)


def share(*trainings: TrainingFacts, needed: int = 0, **given: Any) -> list[do.Action]:
    fields = {"taken": set(), "fleet": FLEET, "rules": TWO, "now": NOW} | given
    return [*share_out(trainings, needed, **fields)]


def test_what_replicas_leave_over_is_given_away() -> None:
    assert share(WAITS) == [do.PlaceTraining("w", "local", 0)]
    assert share(WAITS, taken={Place("local", 0)}) == [do.PlaceTraining("w", "local", 1)]
    assert share(RUNS, WAITS) == [do.PlaceTraining("w", "local", 1)]
    assert share(WAITS, needed=3) == [do.PlaceTraining("w", "local", 0)]
    assert share(WAITS, needed=4) == []
    assert share(WAITS, taken={Place("local", 0), Place("local", 1)}) == [], "not on others"
    assert share(RUNS, WAITS, rules=TrainingRules("local", 1)) == []
    assert share(WAITS, rules=TrainingRules("local", 0)) == []


def test_who_has_it_for_the_shortest_time_leaves_first_and_is_told_once() -> None:
    late = replace(RUNS, id="late", place=Place("local", 1), placed_at=900.0)
    assert share(RUNS, late, needed=3) == [do.YieldTraining("late")]
    assert share(RUNS, replace(late, yielding=True), needed=3) == []
    assert share(RUNS, replace(late, yielding=True), needed=4) == [do.YieldTraining("r")]
    unbegun = replace(late, state=WorkState.QUEUED)
    assert share(RUNS, unbegun, needed=3) == [do.FreeTraining("late")]


def test_who_gave_way_waits_for_a_moment() -> None:
    gave = replace(WAITS, placed_at=500.0, sign_at=NOW - PAUSE_S / 2)
    assert share(gave) == []
    assert share(gave, now=NOW + PAUSE_S) == [do.PlaceTraining("w", "local", 0)]


def test_what_was_lost_is_asked_for_again_and_the_dead_leave() -> None:
    placed = replace(WAITS, place=Place("local", 1), placed_at=NOW, sign_at=NOW)
    assert share(placed) == []
    again = share(placed, now=NOW + ASK_AGAIN_S + 1)
    assert again == [do.PlaceTraining("w", "local", 1)]
    dead = replace(RUNS, sign_at=NOW - SILENT_S - 1)
    assert share(dead, WAITS) == [
        do.FreeTraining("r"),
        do.PlaceTraining("w", "local", 1),
    ], "its place is used when it is free"
    assert share(replace(dead, state=WorkState.CANCELLED)) == [do.FreeTraining("r")]
    assert share(replace(RUNS, state=WorkState.CANCELLED)) == [], "it is about to leave"


def test_one_that_runs_nowhere_and_one_that_was_to_leave_before_it_began_are_freed() -> None:
    nowhere = replace(RUNS, place=None, sign_at=NOW - SILENT_S - 1)
    assert share(nowhere, rules=TrainingRules("local", 1)) == [do.FreeTraining("r")]
    assert share(replace(nowhere, sign_at=NOW)) == []
    unbegun = replace(RUNS, state=WorkState.QUEUED, yielding=True)
    assert share(unbegun, needed=4) == [do.FreeTraining("r")]
    later = share(unbegun, now=NOW + ASK_AGAIN_S + 1)
    assert later == [do.PlaceTraining("r", "local", 0)], "it isn't wanted any more"


def test_tenants_take_turns() -> None:
    mine = [replace(WAITS, id=f"m{n}", created_at=float(n)) for n in range(3)]
    theirs = replace(WAITS, id="t", tenant="b", created_at=9.0)
    four = {"fleet": Fleet({"local": 9}), "rules": TrainingRules("local", 3)}
    assert [a.job for a in share(*mine, theirs, **four)] == ["m0", "t", "m1"]  # type: ignore[union-attr]
    running = replace(RUNS, id="m", place=Place("local", 8))
    assert [a.job for a in share(running, *mine, theirs, **four)] == ["t", "m0"]  # type: ignore[union-attr]


def test_a_host_outside_the_fleet_takes_nothing_from_it() -> None:
    beside = TrainingRules("trainer", 1)
    assert share(WAITS, needed=4, rules=beside) == [do.PlaceTraining("w", "trainer", 0)]
    there = replace(RUNS, place=Place("trainer", 0))
    assert share(there, WAITS, needed=4, rules=beside) == []


@given(st.data())
def test_never_more_places_than_there_are(data: st.DataObject) -> None:
    places = [Place("local", n) for n in range(2)]
    state = st.sampled_from([WorkState.QUEUED, WorkState.RUNNING])
    holders = [
        replace(
            RUNS, id=f"h{n}", place=place, state=data.draw(state), yielding=data.draw(st.booleans())
        )
        for n, place in enumerate(data.draw(st.sets(st.sampled_from(places))))
    ]
    waiting = [replace(WAITS, id=f"w{n}") for n in range(data.draw(st.integers(0, 3)))]
    free = {p for p in places if p not in {h.place for h in holders}}
    taken = {p for p in free if data.draw(st.booleans())}
    needed = data.draw(st.integers(len(taken), 4))
    most = data.draw(st.integers(0, 3))
    found = share(
        *holders, *waiting, needed=needed, taken=taken, rules=TrainingRules("local", most)
    )
    new = [Place(a.host, a.slot) for a in found if isinstance(a, do.PlaceTraining)]
    left = [a for a in found if isinstance(a, do.YieldTraining | do.FreeTraining)]
    gone = sum(h.yielding for h in holders) + len(left)
    assert len({*new, *taken, *(h.place for h in holders)}) == len(new) + len(taken) + len(holders)
    assert len(holders) + len(new) - gone <= max(0, min(most, FLEET.size - needed))
    assert not (new and left)
