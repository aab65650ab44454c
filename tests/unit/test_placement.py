"""Who may have how many replicas on a fleet with a limit, and where."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement import Claim, Fleet, Holder, Place, allow, full


def claim(name: str, wanted: int, **more: float) -> Claim:
    numbers = {"guaranteed": 0, "busy": wanted} | more
    return Claim(name, wanted, **numbers)  # type: ignore[arg-type]


def test_all_get_what_they_want_where_there_is_room() -> None:
    assert allow([claim("a", 2), claim("b", 3, surge=1)], 6) == {"a": 2, "b": 4}


def test_guaranteed_replicas_come_before_a_higher_priority() -> None:
    claims = [claim("low", 3, guaranteed=2), claim("high", 3, priority=9)]
    assert allow(claims, 3) == {"low": 2, "high": 1}


def test_work_comes_before_idleness_and_the_latest_used_stays() -> None:
    idle = [claim("old", 1, busy=0, has=1, used_at=1), claim("new", 1, busy=0, has=1, used_at=2)]
    assert allow([*idle, claim("busy", 1)], 2) == {"old": 0, "new": 1, "busy": 1}


def test_by_priority_then_everybody_one_before_anybody_two() -> None:
    claims = [claim("a", 3), claim("b", 3), claim("top", 2, priority=1)]
    assert allow(claims, 4) == {"a": 1, "b": 1, "top": 2}


def test_who_holds_a_place_keeps_it_among_equals() -> None:
    claims = [claim("newcomer", 1, used_at=1), claim("holder", 1, has=1, used_at=2)]
    assert allow(claims, 1) == {"newcomer": 0, "holder": 1}


CLAIMS = st.lists(
    st.builds(
        lambda wanted, low, busy, surge, priority, has, used: Claim(
            "", wanted, min(low, wanted), min(busy, wanted), surge, priority, has, used
        ),
        *(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)),
        *(st.integers(-2, 2), st.integers(0, 5), st.floats(0, 9)),
    ),
    max_size=6,
)


@given(claims=CLAIMS, size=st.integers(0, 20))
def test_never_over_the_limit_nothing_wasted_guarantees_kept(
    claims: list[Claim], size: int
) -> None:
    from dataclasses import replace

    claims = [replace(c, deployment=str(i)) for i, c in enumerate(claims)]
    allowed = allow(claims, size)
    asked = sum(c.wanted + c.surge for c in claims)
    assert sum(allowed.values()) == min(size, asked)
    assert all(allowed[c.deployment] <= c.wanted + c.surge for c in claims)
    if sum(c.guaranteed for c in claims) <= size:
        assert all(allowed[c.deployment] >= c.guaranteed for c in claims)


def test_who_waits_is_told_who_has_the_places_but_no_name_of_another_tenant() -> None:
    holders = [Holder("me", f"d{i}", 1 + (i == 3)) for i in range(7)] + [Holder("you", "x", 4)]
    assert full(holders, "me") == (
        "the fleet is full (d3 has 2, d0 has 1, d1 has 1, d2 has 1, d4 has 1, 3 others have 6)"
    )
    assert full(holders[-1:], "me") == "the fleet is full (1 other has 4)"


def test_free_places_spread_over_hosts() -> None:
    fleet = Fleet({"a": 2, "b": 3})
    taken = {Place("b", 0)}
    assert list(fleet.free(taken)) == [
        Place("a", 0),
        Place("b", 1),
        Place("a", 1),
        Place("b", 2),
    ]
    assert taken == {Place("b", 0)}


def test_a_host_that_has_left_the_fleet_gives_no_places() -> None:
    assert list(Fleet({"a": 1}).free({Place("gone", 0)})) == [Place("a", 0)]
