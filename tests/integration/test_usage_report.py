"""Reports of use and cost, from a real database."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session

from loraplex.database import connect
from loraplex.dimensions import Dimension
from loraplex.entities import Deployment, Replica, Tenant, UsageRecord
from loraplex.usage import Line, Query, Sums, Use, fold, report, share_out, split

HOUR = 3600
DAY = 1_800_000_000 // 86400 * 86400
BOUNDS = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1, "scale_up_threshold": 1}
PRICES = {"gpu": 3.0, "*": 1.0}


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


@pytest.fixture(scope="module")
def session(database_url: str) -> Iterator[Session]:
    """Two tenants, a shared and a private deployment, six hours."""
    engine = connect(database_url)
    with Session(engine) as session:
        _fill(session)
        yield session
    engine.dispose()


def _fill(session: Session) -> None:
    session.add_all([Tenant(id="ops", operator=True), Tenant(id="acme"), Tenant(id="other")])
    session.flush()
    session.add_all(
        [
            Deployment(
                id="dep-s", tenant_id="ops", name="shared", base_model="m", shared=True, **BOUNDS
            ),
            Deployment(id="dep-p", tenant_id="acme", name="own", base_model="m", **BOUNDS),
        ]
    )
    session.flush()
    for name, deployment, host, start, end in (
        ("rep-1", "dep-s", "gpu", 0, 2),
        ("rep-2", "dep-p", "cpu", 1, 4),
        ("rep-3", "dep-p", "cpu", -5, -4),  # before the time that is asked for
    ):
        times = {"created_at": moment(DAY + start * HOUR), "gone_at": moment(DAY + end * HOUR)}
        session.add(Replica(id=name, deployment_id=deployment, host=host, state="gone", **times))
    record(session, "a", DAY + 10, "acme", "dep-s", 30.0, adapter="pirate/1")
    record(session, "b", DAY + HOUR - 1, "other", "dep-s", 90.0)
    record(session, "c", DAY + HOUR, "acme", "dep-s", 60.0, status="error")
    record(session, "d", DAY + HOUR + 5, "acme", "dep-p", 10.0)
    record(session, "d.1", DAY + HOUR + 6, "acme", "dep-p", 10.0)
    session.commit()


def record(
    session: Session,
    name: str,
    at: int,
    tenant: str,
    deployment: str,
    in_batch_s: float,
    adapter: str = "",
    status: str = "stop",
) -> None:
    first = "." not in name
    session.add(
        UsageRecord(
            id=f"{name}@1-0",
            request=name.partition(".")[0],
            first=first,
            at=at,
            tenant_id=tenant,
            key_id="key-1",
            deployment_id=deployment,
            adapter=adapter,
            prompt_tokens=10 if first else 0,
            cached_tokens=4 if first else 0,
            completion_tokens=5,
            queue_s=1.0,
            first_token_s=2.0,
            duration_s=in_batch_s + 1,
            status=status,
        )
    )


def of(
    session: Session, tenant: str | None, *by: Dimension, bucket: int | None = None
) -> list[Line]:
    return report(session, Query(DAY, DAY + 6 * HOUR, tenant, by, bucket), PRICES)


def test_everything_in_one_line(session: Session) -> None:
    (line,) = of(session, "acme")
    sums = line.sums
    assert (sums.requests, sums.answers, sums.failed) == (3, 4, 1)
    assert (sums.prompt_tokens, sums.cached_tokens, sums.completion_tokens) == (30, 12, 20)
    # Of the shared deployment's two hours at 3.0 a quarter and all; its own has three at 1.0.
    assert sums.replica_s == pytest.approx(1.25 * HOUR + 3 * HOUR)
    assert sums.cost == pytest.approx(3.75 + 3)


def test_costs_are_shared_out_within_each_bucket(session: Session) -> None:
    lines = of(session, "acme", Dimension.DEPLOYMENT, bucket=HOUR)
    found = {((line.bucket - DAY) // HOUR, *line.key): line.sums.cost for line in lines}
    assert found == pytest.approx(
        {
            (0, "shared"): 3 * 30 / 120,
            (1, "shared"): 3.0,
            (1, "own"): 1.0,
            (2, "own"): 1.0,  # idle
            (3, "own"): 1.0,
        }
    )


def test_the_owner_of_a_shared_deployment_pays_for_its_idle_hours_alone(session: Session) -> None:
    assert of(session, "ops") == [], "others had requests in both of its hours"


def test_costs_do_not_depend_on_the_buckets(session: Session) -> None:
    for tenant in ("acme", "other", None):
        (whole,) = of(session, tenant)
        for bucket in (60, HOUR, 86400):
            parts = of(session, tenant, bucket=bucket)
            if bucket >= HOUR:
                assert sum(p.sums.cost for p in parts) == pytest.approx(whole.sums.cost)


def test_all_tenants_together_cost_what_all_replicas_did(session: Session) -> None:
    lines = of(session, None, Dimension.TENANT)
    assert [line.key for line in lines] == [("acme",), ("other",)]
    assert sum(line.sums.cost for line in lines) == pytest.approx(2 * 3 + 3 * 1)
    for by in Dimension:
        lines = of(session, None, by, bucket=HOUR)
        assert sum(line.sums.cost for line in lines) == pytest.approx(2 * 3 + 3 * 1)
        assert sum(line.sums.requests for line in lines) == 4


def test_by_adapter_and_status(session: Session) -> None:
    lines = of(session, "acme", Dimension.ADAPTER, Dimension.STATUS)
    assert {line.key: line.sums.answers for line in lines} == {
        ("", ""): 0,  # idle hours
        ("", "error"): 1,
        ("", "stop"): 2,
        ("pirate/1", "stop"): 1,
    }


def test_nobody_sees_anothers(session: Session) -> None:
    (line,) = of(session, "other", Dimension.DEPLOYMENT)
    assert (line.key, line.sums.requests) == (("shared",), 1)
    assert of(session, "nobody") == []


times = st.floats(0, 1e6, allow_nan=False)


@given(st.integers(1, 10**5), times, times)
def test_buckets_hold_all_of_a_time(bucket: int, start: float, length: float) -> None:
    query = Query(0, 10**7, None, (), bucket)
    end = start + length % (100 * bucket)
    parts = list(split(query, start, end))
    assert sum(seconds for _, seconds in parts) == pytest.approx(end - start, abs=1e-3)
    assert all(at % bucket == 0 and 0 <= seconds <= bucket for at, seconds in parts)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 100))))
def test_nothing_is_lost_when_costs_are_shared_out(rows: list[tuple[str, str, float]]) -> None:
    uses = [
        Use(0, name, tenant, {Dimension.TENANT: tenant}, Sums(duration_s=seconds))
        for name, tenant, seconds in rows
    ]
    times = {(0, name): Sums(replica_s=60, cost=7) for name in "abc"}
    totals = {
        (0, name): sum(u.sums.in_batch_s for u in uses if u.deployment == name) for name in "ab"
    }
    left = share_out(uses, times, totals)
    lines = fold(uses, (Dimension.TENANT,), {})
    cost = sum(line.sums.cost for line in lines) + sum(sums.cost for sums in left.values())
    assert cost == pytest.approx(21)
