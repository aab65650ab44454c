"""What was used and what it cost, from usage records and from the times of replicas.

A deployment's cost is its replicas' time by the price of their places. It is shared out, hour by
hour, to those who had requests there, by the seconds that these were in a batch; what nobody used
is its owner's.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, func, literal_column
from sqlalchemy import select as columns
from sqlmodel import Session, col, or_, select

from loraplex.dimensions import Dimension
from loraplex.entities import Deployment, Replica, UsageRecord

HOUR_S = 3600
ANY = "*"  # the price of places that have none of their own


_COLUMNS = {
    Dimension.TENANT: col(UsageRecord.tenant_id),
    Dimension.DEPLOYMENT: col(UsageRecord.deployment_id),
    Dimension.ADAPTER: col(UsageRecord.adapter),
    Dimension.KEY: col(UsageRecord.key_id),
    Dimension.STATUS: col(UsageRecord.status),
}


@dataclass(frozen=True, slots=True)
class Query:
    """From `since` until before `until` (Unix seconds). `tenant` None: all of them; `bucket_s`
    None: the whole time is one bucket."""

    since: int
    until: int
    tenant: str | None
    by: Sequence[Dimension] = ()
    bucket_s: int | None = None

    def bucket(self, at: float) -> int:
        """The bucket's begin; the first one may have begun before `since`."""
        return int(at) // self.bucket_s * self.bucket_s if self.bucket_s else self.since


@dataclass(slots=True)
class Sums:
    """Of answers; the `_s` are sums of seconds."""

    requests: int = 0
    answers: int = 0
    failed: int = 0  # error or expired
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    first_token_s: float = 0.0
    first_tokens: int = 0  # answers that had one
    duration_s: float = 0.0
    replica_s: float = 0.0
    cost: float = 0.0

    def add(self, other: "Sums") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def in_batch_s(self) -> float:
        return self.duration_s - self.queue_s


@dataclass(frozen=True, slots=True)
class Use:
    """One bucket of one deployment, one value of each dimension."""

    bucket: int
    deployment: str  # id
    tenant: str
    key: Mapping[Dimension, str]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Line:
    """Of a report: a bucket's begin, the values of the dimensions asked for, the sums."""

    bucket: int
    key: tuple[str, ...]
    sums: Sums = field(default_factory=Sums)


def report(session: Session, query: Query, prices: Mapping[str, float]) -> list[Line]:
    """Ordered by bucket and key; deployments by name, and what is deleted with its id, too."""
    # Costs don't depend on the buckets that are asked for, if these are hours or longer.
    fine = replace(query, bucket_s=min(query.bucket_s or HOUR_S, HOUR_S))
    uses = _uses(session, fine)
    owners = _deployments(session, fine, {use.deployment for use in uses})
    times = _replica_times(session, fine, list(owners), prices)
    totals = _in_batch(session, fine, list(owners)) if query.tenant else _in_batch_of(uses)
    idle = share_out(uses, times, totals)
    uses += [
        Use(bucket, name, owner, {Dimension.TENANT: owner, Dimension.DEPLOYMENT: name}, sums)
        for (bucket, name), sums in idle.items()
        if (owner := owners[name].tenant_id) == query.tenant or query.tenant is None
    ]
    names = {name: _shown(row) for name, row in owners.items()}
    return fold([replace(use, bucket=query.bucket(use.bucket)) for use in uses], query.by, names)


def share_out(
    uses: Iterable[Use],
    times: Mapping[tuple[int, str], Sums],
    in_batch: Mapping[tuple[int, str], float],
) -> dict[tuple[int, str], Sums]:
    """Add each one's part of its deployment's time and cost to what it used; what is nobody's is
    returned. `in_batch`: seconds of all who used it. Pure."""
    for use in uses:
        place = (use.bucket, use.deployment)
        total = in_batch.get(place, 0.0)
        if total > 0 and place in times:
            part = use.sums.in_batch_s / total
            use.sums.replica_s += part * times[place].replica_s
            use.sums.cost += part * times[place].cost
    return {place: sums for place, sums in times.items() if in_batch.get(place, 0.0) <= 0}


def fold(uses: Iterable[Use], by: Sequence[Dimension], names: Mapping[str, str]) -> list[Line]:
    """The sums by the dimensions asked for. Pure."""
    lines: dict[tuple[int, tuple[str, ...]], Line] = {}
    for use in uses:
        values = {**use.key, Dimension.DEPLOYMENT: names.get(use.deployment, use.deployment)}
        key = tuple(values.get(each, "") for each in by)
        line = lines.setdefault((use.bucket, key), Line(use.bucket, key))
        line.sums.add(use.sums)
    return [lines[place] for place in sorted(lines)]


def _uses(session: Session, query: Query) -> list[Use]:
    dimensions = list(dict.fromkeys((Dimension.DEPLOYMENT, Dimension.TENANT, *query.by)))
    bucket = _bucket_column(query)
    record = UsageRecord
    failed = col(record.status).in_(("error", "expired"))
    wanted: Any = columns(
        bucket,
        *(_COLUMNS[each] for each in dimensions),
        func.count().filter(col(record.first)),
        func.count(),
        func.count().filter(failed),
        func.sum(record.prompt_tokens),
        func.sum(record.cached_tokens),
        func.sum(record.completion_tokens),
        func.sum(record.queue_s),
        func.coalesce(func.sum(record.first_token_s), 0.0),
        func.count(col(record.first_token_s)),
        func.sum(record.duration_s),
    )
    wanted = _within(wanted, query).group_by(bucket, *(_COLUMNS[each] for each in dimensions))
    if query.tenant is not None:
        wanted = wanted.where(record.tenant_id == query.tenant)
    found = []
    for at, *rest in session.execute(wanted):
        key = dict(zip(dimensions, rest, strict=False))
        sums = Sums(*rest[len(dimensions) :])
        found.append(Use(at, key[Dimension.DEPLOYMENT], key[Dimension.TENANT], key, sums))
    return found


def _bucket_column(query: Query) -> Any:
    at = col(UsageRecord.at)
    # A literal: PostgreSQL takes two parameters for two expressions, also if they are equal.
    return at - at % literal_column(str(query.bucket_s))


def _within(wanted: "Select[Any]", query: Query) -> Any:
    at = col(UsageRecord.at)
    return wanted.where(at >= query.since, at < query.until)


def _in_batch(
    session: Session, query: Query, deployments: Sequence[str]
) -> dict[tuple[int, str], float]:
    """Seconds in batches by bucket and deployment, of all tenants."""
    bucket, name = _bucket_column(query), col(UsageRecord.deployment_id)
    seconds = func.sum(col(UsageRecord.duration_s) - col(UsageRecord.queue_s))
    wanted = _within(columns(bucket, name, seconds), query).where(name.in_(deployments))
    rows = session.execute(wanted.group_by(bucket, name))
    return {(at, deployment): seconds for at, deployment, seconds in rows}


def _in_batch_of(uses: Iterable[Use]) -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = defaultdict(float)
    for use in uses:
        found[use.bucket, use.deployment] += use.sums.in_batch_s
    return found


def _deployments(session: Session, query: Query, used: set[str]) -> dict[str, Deployment]:
    """Those that were used, and the tenant's own, which may have cost something all the same."""
    wanted = select(Deployment)
    if query.tenant is not None:
        own = col(Deployment.tenant_id) == query.tenant
        wanted = wanted.where(or_(own, col(Deployment.id).in_(used)))
    return {row.id: row for row in session.exec(wanted)}


def _replica_times(
    session: Session, query: Query, deployments: Sequence[str], prices: Mapping[str, float]
) -> dict[tuple[int, str], Sums]:
    """By bucket and deployment. A replica costs from when it was asked for until it was gone."""
    since = datetime.fromtimestamp(query.since, UTC)
    until = datetime.fromtimestamp(query.until, UTC)
    gone = col(Replica.gone_at)
    wanted = select(Replica).where(
        col(Replica.deployment_id).in_(deployments),
        col(Replica.created_at) < until,
        or_(gone.is_(None), gone > since),
    )
    found: dict[tuple[int, str], Sums] = defaultdict(Sums)
    now = datetime.now(UTC).timestamp()
    for row in session.exec(wanted):
        start = max(row.created_at.timestamp(), query.since)
        end = min(row.gone_at.timestamp() if row.gone_at else now, query.until)
        a_second = prices.get(row.host, prices.get(ANY, 0.0)) / 3600
        for bucket, seconds in split(query, start, end):
            sums = found[bucket, row.deployment_id]
            sums.replica_s += seconds
            sums.cost += seconds * a_second
    return found


def split(query: Query, start: float, end: float) -> Iterable[tuple[int, float]]:
    """A time in its buckets: (bucket's begin, seconds)."""
    while start < end:
        bucket = query.bucket(start)
        ends = min(end, bucket + query.bucket_s) if query.bucket_s else end
        yield bucket, ends - start
        start = ends


def _shown(row: Deployment) -> str:
    return f"{row.name} ({row.id})" if row.status == "deleted" else row.name
