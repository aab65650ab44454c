"""Facts → actions: what becomes of changes, former lanes and places; one bad deployment alone."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from loraplex.broker.interface import SeenLane, SeenReplica
from loraplex.keys import Lane
from loraplex.messages import Phase, ReplicaReport
from loraplex.replica_state import ReplicaState
from loraplex.status import Event, Status
from scheduler import actions as do
from scheduler.drivers.base import Running
from scheduler.explain import explain
from scheduler.facts import DeploymentFacts, ReplicaFacts, World
from scheduler.law import decide
from scheduler.placement import TURN_S, Fleet, Place
from scheduler.reconcile import Look, Rules, reconcile
from scheduler.scaling import Scaling
from scheduler.starts import Remembered

NOW = 1000.0
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING
A, B, C = (Lane(model, "dep-1") for model in "ABC")


def deployment(lane: Lane = A, **changes: Any) -> DeploymentFacts:
    """Revision 1 serves, of model A."""
    given: dict[str, Any] = {
        **{"name": "d", "tenant": "t", "status": Status.READY, "reason": "", "priority": 0},
        **{"scaling": Scaling(0, 4, 600, 4), "lanes": {1: lane}},
        **{"revision": 1, "target": 1, "prepared": 1, "served": 1},
        **{"failed_starts": 0, "retry_at": None, "starts": 5},
    }
    return DeploymentFacts(id=lane.deployment_id, lane=lane, **(given | changes))


def replica(
    number: int,
    lane: Lane = A,
    state: ReplicaState = READY,
    *,
    revision: int = 1,
    phase: Phase = "ready",
    alive: bool = True,
    running: int = 0,
    failed: bool = False,
) -> ReplicaFacts:
    name = f"r{number}"
    report = ReplicaReport(name, phase, NOW, running, 4, permanent=failed, error="it can't run")
    seen = SeenReplica(f"{name}:1", alive and state != STARTING, state == DRAINING, report)
    process = Running(name, alive)
    return ReplicaFacts(
        *(name, lane, revision, state, "a", number, NOW - 20, NOW - 20, process, seen)
    )


def seen(lane: Lane, *replicas: ReplicaFacts, **changes: Any) -> SeenLane:
    given: dict[str, Any] = {"waiting": 0, "running": 0, "oldest_wait_s": 0.0, "gate": "open"}
    reports = [r.seen for r in replicas if r.lane == lane and r.seen is not None]
    return SeenLane(lane=lane, at=NOW, replicas=reports, arrived=100, **(given | changes))


def look(
    deployments: list[DeploymentFacts],
    replicas: list[ReplicaFacts],
    lanes: list[SeenLane],
    rules: Rules | None = None,
    memory: Mapping[str, Remembered] = MappingProxyType({}),
    **world: Any,
) -> Look:
    mine = {
        d.id: [r for r in replicas if r.lane.deployment_id == d.lane.deployment_id]
        for d in deployments
    }
    found = {lane.lane: lane for lane in lanes}
    rules = rules or Rules(Fleet({"a": 10}), slots=4)
    return reconcile(World(NOW, deployments, mine, found, **world), memory, rules)


def of(found: Look, kind: type) -> list[Any]:
    return [action for action in found.actions if isinstance(action, kind)]


# Another base model


MOVED = deployment(A, lanes={1: A, 2: B}, revision=2, target=2, prepared=2, served=2)
MOVED = replace(MOVED, lane=B)


def test_a_former_lane_is_shut_before_its_replicas_go() -> None:
    old, new = replica(1, A), replica(2, B, revision=2)
    waiting = seen(A, old, waiting=3, running=0)
    found = look([MOVED], [old, new], [waiting, seen(B, new)])
    assert [a.lane for a in of(found, do.ShutGate)] == [A]
    assert not of(found, do.Order), "jobs wait for the old one"
    empty = seen(A, old, gate="shut")
    found = look([MOVED], [old, new], [empty, seen(B, new)])
    assert [(a.id, a.drain) for a in of(found, do.Order)] == [("r1", True)]


def test_who_waits_on_a_former_lane_gets_a_replica_of_its_own() -> None:
    """Its replicas died, or a sender came late. Nothing that was accepted is answered an error."""
    new = replica(2, B, revision=2)
    for jobs in ({"waiting": 1}, {"running": 4}):
        found = look([MOVED], [new], [seen(A, gate="shut", **jobs), seen(B, new)])
        assert [a.revision for a in of(found, do.Intend)] == [1]
        assert not of(found, do.AnswerStranded)
        assert not of(found, do.ForgetLane)


def test_a_draining_replica_is_kept_for_them() -> None:
    old, new = replica(1, A, DRAINING), replica(2, B, revision=2)
    found = look([MOVED], [old, new], [seen(A, old, gate="shut", waiting=1), seen(B, new)])
    assert [(a.id, a.drain) for a in of(found, do.Order)] == [("r1", False)]
    assert not of(found, do.Intend)


def test_what_runs_on_a_draining_replica_needs_no_other() -> None:
    old, new = replica(1, A, DRAINING, running=4), replica(2, B, revision=2)
    found = look([MOVED], [old, new], [seen(A, old, gate="shut", running=4), seen(B, new)])
    assert not of(found, do.Order)
    assert not of(found, do.Intend)


def test_an_empty_former_lane_is_forgotten_but_for_what_may_come_back() -> None:
    new = replica(2, B, revision=2)
    lanes = [seen(A, gate="shut"), seen(B, new)]
    assert [a.lane for a in of(look([MOVED], [new], lanes), do.ForgetLane)] == [A]
    untried = replace(MOVED, served=1, status=Status.INITIALIZING)
    assert not of(look([untried], [], lanes), do.ForgetLane)


# A change that can't be


def test_while_a_change_is_fetched_what_serves_is_scaled() -> None:
    old = replica(1, A, running=4)
    fetching = deployment(
        lanes={1: A, 2: B}, target=2, status=Status.UPDATING, scaling=Scaling(0, 4, 600, 4)
    )
    lanes = [seen(A, old, waiting=400, running=4, oldest_wait_s=30.0), seen(B)]
    found = look([fetching], [old], lanes)
    assert {a.revision for a in of(found, do.Intend)} == {1}
    assert [a.deployment for a in of(found, do.Prepare)] == ["dep-1"]
    gone = look([fetching], [], [seen(A, waiting=4), seen(B)])
    assert not of(gone, do.Serve), "nobody knows yet whether the other model is any good"
    assert [a.event for a in of(gone, do.Move)][:1] == [Event.LAST_REPLICA_GONE]


def test_a_change_in_standby_is_fetched_beside_it() -> None:
    facts = deployment(lanes={1: A, 2: B}, target=2, status=Status.STANDBY)
    found = look([facts], [], [seen(A, gate="idle"), seen(B)])
    assert not of(found, do.Serve)
    assert not of(found, do.Move)
    assert of(found, do.Prepare)


def test_another_base_model_is_tried_before_requests_go_to_it() -> None:
    facts = deployment(lanes={1: A, 2: B}, target=2, prepared=2, status=Status.STANDBY)
    found = look([facts], [], [seen(A, gate="idle"), seen(B)])
    assert [a.revision for a in of(found, do.Intend)] == [2]
    assert not of(found, do.Serve)
    asked = look([facts], [], [seen(A, waiting=1), seen(B)])
    assert sorted(a.revision for a in of(asked, do.Intend)) == [1, 2]

    trying = replace(facts, status=Status.INITIALIZING)
    loading = replica(2, B, STARTING, revision=2, phase="loading")
    found = look([trying], [loading], [seen(A), seen(B, loading)])
    assert not of(found, do.Gone), "though nobody asks for it"
    tried = replace(loading, seen=replica(2, B, revision=2).seen)
    found = look([trying], [tried], [seen(A), seen(B, tried)])
    assert [(a.revision, a.base_model) for a in of(found, do.Serve)] == [(2, "B")]
    never = replace(facts, served=0)
    at_once = look([never], [], [seen(A, gate="idle"), seen(B)])
    assert [a.revision for a in of(at_once, do.Serve)] == [2], "there is nothing to go back to"


def test_what_was_never_fetched_is_pending() -> None:
    never = deployment(status=Status.STANDBY, prepared=0, served=0)
    assert [a.event for a in of(look([never], [], [seen(A)]), do.Move)] == [Event.ARTEFACTS_MISSING]


def test_a_bad_change_goes_back_to_what_served_also_without_a_replica_of_it() -> None:
    """As on a fleet of one, where the old replica makes room first."""
    facts = deployment(
        lanes={1: A, 2: A}, revision=2, target=2, prepared=2, status=Status.INITIALIZING
    )
    bad = replica(1, A, STARTING, revision=2, phase="failed", alive=False, failed=True)
    found = look([facts], [bad], [seen(A, bad, waiting=1)])
    (back,) = of(found, do.TakeBack)
    assert (back.seen, back.target, back.revision) == (Status.INITIALIZING, 2, 1)
    assert [a.revision for a in of(found, do.Intend)] == [1]
    never = replace(facts, served=0)
    found = look([never], [bad], [seen(A, bad, waiting=1)])
    assert [a.event for a in of(found, do.Move)] == [Event.START_FAILED]


def test_the_failed_start_of_a_former_change_says_nothing_of_the_newest_one() -> None:
    facts = deployment(
        lanes={1: A, 2: B, 3: C}, target=3, prepared=3, status=Status.UPDATING, served=1
    )
    old = replica(1, A, running=3)
    bad = replica(2, B, STARTING, revision=2, phase="failed", alive=False, failed=True)
    lanes = [seen(A, old, running=3), seen(B, bad), seen(C)]
    found = look([facts], [old, bad], lanes)
    assert not of(found, do.TakeBack)
    assert [(a.id, a.failed) for a in of(found, do.Gone)] == [("r2", None)]
    loading = replica(2, B, STARTING, revision=2, phase="loading")
    found = look([facts], [old, loading], lanes)
    assert [a.id for a in of(found, do.Gone)] == ["r2"], "nobody needs it any more"


def test_a_straggler_tells_nothing_of_the_goal() -> None:
    facts = replace(MOVED, failed_starts=2, retry_at=NOW + 60)
    late = replace(replica(3, A, STARTING), seen=replica(3, A).seen)
    found = look([facts], [late], [seen(A, late, gate="shut", waiting=1), seen(B)])
    assert [a.served for a in of(found, do.BecameReady)] == [0]
    assert not found.memory["dep-1"].starts


def test_what_was_taken_back_is_not_started_again_for_who_waits_for_it() -> None:
    facts = deployment(B, lanes={1: A, 2: B}, revision=2, target=2, prepared=2)
    facts = replace(facts, id="dep-1", status=Status.INITIALIZING)
    bad = replica(0, B, STARTING, revision=2, phase="failed", alive=False, failed=True)
    one = Rules(Fleet({"a": 1}), slots=4)
    lanes = [seen(A, waiting=2), seen(B, bad, waiting=3)]
    found = look([facts], [bad], lanes, one)
    known = found.memory
    after = replace(facts, lane=A, revision=1, target=1, status=Status.STANDBY)
    world = World(NOW, [after], {}, {lane.lane: lane for lane in lanes})
    again = reconcile(world, known, one)
    assert [a.revision for a in of(again, do.Intend)] == [1]
    assert [a.lane for a in of(again, do.AnswerStranded)] == [B]


def test_a_lane_that_is_used_again_is_no_burst_of_arrivals() -> None:
    """Each lane counts its own arrivals, since it exists."""
    facts, served = deployment(), replica(1)
    first = look([facts], [served], [seen(A, served)])
    moved = replace(MOVED, scaling=facts.scaling)
    other = seen(B, replica(2, B, revision=2), waiting=0)
    world = World(NOW + 1, [moved], {}, {A: seen(A), B: replace(other, arrived=9000)})
    later = reconcile(world, first.memory, Rules(Fleet({"a": 4}), slots=4))
    assert later.decided["dep-1"].seen.arrived == first.decided["dep-1"].seen.arrived


def test_a_deployment_that_is_deleted_during_a_change_leaves_no_lane() -> None:
    facts = deployment(lanes={1: A, 2: B}, target=2, prepared=2, status=Status.DELETED)
    found = look([facts], [], [seen(A), seen(B)])
    assert {a.lane for a in of(found, do.ForgetLane)} == {A, B}
    assert not of(found, do.Serve)
    nothing = look([replace(facts, lanes={})], [], [seen(A, gate="")])
    assert not nothing.actions, "its gate has expired, and stays so"


def test_a_word_of_the_user_is_heard_at_once_after_a_long_fetch() -> None:
    facts = deployment(lanes={1: A, 2: B}, target=2, status=Status.PENDING)
    lanes = [seen(A), seen(B)]
    asked = look([facts], [], lanes)
    assert of(asked, do.Prepare)
    rules = Rules(Fleet({"a": 4}))
    world = World(NOW + 1, [facts], {}, {lane.lane: lane for lane in lanes})
    again = reconcile(world, asked.memory, rules)
    assert not of(again, do.Prepare)
    errored = replace(world, deployments=[replace(facts, status=Status.ERRORED)])
    failed = reconcile(errored, again.memory, rules)
    assert of(reconcile(world, failed.memory, rules), do.Prepare)


def test_former_revisions_on_the_same_lane_are_not_looked_at_for_ever() -> None:
    facts = deployment(lanes={1: A, 2: A, 3: A}, revision=3, target=3, prepared=3, served=3)
    now = replica(1, A, revision=3)
    assert of(look([facts], [now], [seen(A, now)]), do.Retire) == [do.Retire("dep-1", [1, 2])]


# Places


def test_a_place_is_free_when_its_process_has_ended() -> None:
    facts = deployment(status=Status.STANDBY)
    one = Rules(Fleet({"a": 1}), slots=4)
    ending = {"orphans": ("rep-1-1",), "taken": frozenset({Place("a", 0)})}
    found = look([facts], [], [seen(A, waiting=1)], one, **ending)
    assert not of(found, do.Intend)
    assert of(found, do.EndOrphan)
    assert of(look([facts], [], [seen(A, waiting=1)], one), do.Intend)
    unheard = look([facts], [], [seen(A, waiting=1)], one, driver_heard=False)
    assert not of(unheard, do.Intend), "who knows what runs there"


def test_a_busy_replica_yields_to_a_guaranteed_one() -> None:
    high = deployment(Lane("A", "dep-2"), scaling=Scaling(2, 2, 600, 4), priority=10)
    low, its, first = deployment(), replica(0, A, running=1), replica(1, high.lane)
    lanes = [seen(A, its, running=1), seen(high.lane, first)]
    found = look([low, high], [its, first], lanes, Rules(Fleet({"a": 2}), slots=4))
    assert [(a.id, a.drain) for a in of(found, do.Order)] == [("r0", True)]
    assert not of(found, do.ScaleToZero), "its gate stays open: it still has work"


@pytest.mark.parametrize(
    ("waited_s", "held_s", "yields"),
    [(TURN_S / 2, 9 * TURN_S, False), (2 * TURN_S, 9 * TURN_S, True), (9 * TURN_S, 20.0, False)],
)
def test_one_that_is_busy_all_the_time_takes_turns_with_its_equals(
    waited_s: float, held_s: float, yields: bool
) -> None:
    other = deployment(Lane("A", "dep-2"), status=Status.STANDBY)
    busy = replace(replica(0, A, running=4), created_at=NOW - held_s)
    one = Rules(Fleet({"a": 1}), slots=4)
    lanes = [seen(A, busy, running=4), seen(other.lane, waiting=1, oldest_wait_s=waited_s)]
    found = look([deployment(), other], [busy], lanes, one)
    assert bool(of(found, do.Order)) == yields


def test_who_waits_for_a_place_says_so_once() -> None:
    other = deployment(Lane("A", "dep-2"), name="other")
    holder, one = replica(0, other.lane, running=4), Rules(Fleet({"a": 1}), slots=4)
    lanes = [seen(A, waiting=1), seen(other.lane, holder, running=4)]
    waits = deployment(status=Status.STANDBY)
    first = look([waits, other], [holder], lanes, one)
    (note,) = of(first, do.Note)
    assert note.deployment == "dep-1"
    assert note.reason.endswith("it waits for 1 more: the fleet is full (other has 1)")
    explained = explain(first.decided["dep-1"], NOW, decide)
    assert (explained.wanted, explained.allowed) == (1, 0)
    assert explained.would_change[0].startswith("Up: the fleet is full (other has 1). Who has no")
    again = look([waits, other], [holder], lanes, one, memory=first.memory)
    assert not of(again, do.Note)


@pytest.mark.parametrize("since", [None, NOW - TURN_S / 2, NOW - 2 * TURN_S])
def test_a_rollout_on_a_full_fleet_says_that_it_waits_and_gets_a_turn(since: float | None) -> None:
    """Both are busy all the time."""
    changing = deployment(status=Status.UPDATING, lanes={1: A, 2: A}, target=2, prepared=2)
    other = deployment(Lane("A", "dep-2"), name="other")
    serves, theirs = (
        replace(replica(i, lane, running=4), created_at=NOW - 9 * TURN_S)
        for i, lane in enumerate((A, other.lane))
    )
    lanes = [seen(A, serves, running=4), seen(other.lane, theirs, running=4)]
    two = Rules(Fleet({"a": 2}), slots=4)
    known = {"dep-1": Remembered(surge_since=since)}
    found = look([changing, other], [serves, theirs], lanes, two, known)
    waited = since is not None and NOW - since > TURN_S
    assert [a.id for a in of(found, do.Order)] == (["r1"] if waited else [])
    assert found.memory["dep-1"].surge_since == (since or NOW)
    notes = [a.reason for a in of(found, do.Note) if a.deployment == "dep-1"]
    full = "The change waits for a place: the fleet is full (d has 1, other has 1)"
    assert notes == ([] if waited else [full])
    (told, *_) = explain(found.decided["dep-1"], NOW, decide).would_change[1:]
    assert waited or told.startswith("The change that is rolled out waits for a place")


@pytest.mark.parametrize(("waited_s", "goes"), [(TURN_S / 2, []), (2 * TURN_S, ["r0"])])
def test_where_nobody_can_make_room_a_change_is_made_in_place(
    waited_s: float, goes: list[str]
) -> None:
    """One place, one deployment, busy all the time."""
    changing = deployment(status=Status.UPDATING, lanes={1: A, 2: A}, target=2, prepared=2)
    serves = replica(0, A, running=4)
    known = {"dep-1": Remembered(surge_since=NOW - waited_s)}
    one = Rules(Fleet({"a": 1}), slots=4)
    found = look([changing], [serves], [seen(A, serves, running=4)], one, known)
    assert [a.id for a in of(found, do.Order) if a.drain] == goes


def test_a_rollout_keeps_its_turn_until_it_is_over() -> None:
    changing = deployment(status=Status.UPDATING, lanes={1: A, 2: A}, target=2, prepared=2)
    other = deployment(Lane("A", "dep-2"), name="other", status=Status.STANDBY)
    serves = replace(replica(0, A, running=4), created_at=NOW - 9 * TURN_S)
    starts = replace(replica(1, A, STARTING), revision=2)
    lanes = [seen(A, serves, running=4), seen(other.lane, waiting=9, oldest_wait_s=9 * TURN_S)]
    known = {"dep-1": Remembered(surge_since=NOW - 2 * TURN_S)}
    two = Rules(Fleet({"a": 2}), slots=4)
    found = look([changing, other], [serves, starts], lanes, two, known)
    assert not of(found, do.Gone) and not of(found, do.Order) and not of(found, do.Intend)


# One bad deployment


def test_what_cannot_be_decided_for_one_deployment_holds_that_one() -> None:
    bad = deployment(Lane("A", "dep-2"), status=Status.STANDBY, scaling=Scaling(0, 3, 600, 4))
    good = deployment(status=Status.STANDBY)

    def law(cfg: Scaling, *rest: Any) -> Any:
        if cfg.max_replicas == 3:
            raise OverflowError("of a law")
        return decide(cfg, *rest)

    lanes = [seen(A, waiting=1), seen(bad.lane, waiting=1)]
    found = look([bad, good], [], lanes, Rules(Fleet({"a": 4}), law=law))
    assert [a.deployment for a in of(found, do.Intend)] == ["dep-1"]
    assert list(found.failed) == ["dep-2"]
    assert set(found.memory) == {"dep-1", "dep-2"}
