"""GET /api/v1/usage: what was used, by whom and of what, and its cost; as JSON or CSV."""

import csv
import io
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from sqlmodel import Session

from api.control.usage_schemas import UsageLine, UsageOut
from api.errors import ApiError, bad_request
from api.security import ForDeployments, caller_of
from api.state import StateDep
from loraplex import usage
from loraplex.dimensions import Dimension
from loraplex.entities import Tenant
from loraplex.scopes import Scope
from loraplex.usage import Line

router = APIRouter(tags=["usage"])

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_MOST_BUCKETS = 3000

Bucket = Literal["minute", "hour", "day"]


@router.get("/usage", response_model=UsageOut)
def get(
    http: Request,
    tenant: ForDeployments,
    state: StateDep,
    since: Annotated[datetime | None, Query(description="Begin of this month (UTC).")] = None,
    until: Annotated[datetime | None, Query(description="Not included; now.")] = None,
    by: Annotated[list[Dimension] | None, Query(description="Once for each; all in one.")] = None,
    bucket: Annotated[Bucket | None, Query(description="In UTC; the whole time.")] = None,
    of: Annotated[
        str | None, Query(description="Another tenant, or `*`: all of them. For operators.")
    ] = None,
    format: Literal["json", "csv"] = "json",
) -> Response | UsageOut:
    """Sums over the time, by dimensions and time buckets. Costs are in the currency of
    LORAPLEX_PRICES. What has ended is here within some seconds."""
    now = datetime.now(UTC)
    start = _unix(since or now.replace(day=1, hour=0, minute=0, second=0))
    end = _unix(until) if until else int(now.timestamp()) + 1
    if end <= start:
        raise bad_request("until must be after since.", "until")
    seconds = _SECONDS[bucket] if bucket else None
    if seconds:
        start -= start % seconds
        if (end - start) / seconds > _MOST_BUCKETS:
            message = f"That is over {_MOST_BUCKETS} buckets. Ask for less time, or longer buckets."
            raise bad_request(message, "bucket")
    by = list(dict.fromkeys(by or ()))
    with Session(state.database) as session:
        whose = _whose(session, http, tenant, of)
        query = usage.Query(start, end, whose, by, seconds)
        lines = usage.report(session, query, state.settings.prices)
    rows = [_row(line, by) for line in lines]
    if format == "csv":
        return PlainTextResponse(_csv(rows, by), media_type="text/csv")
    return UsageOut(since=_time(start), until=_time(end), data=rows)


def _whose(session: Session, http: Request, tenant: str, of: str | None) -> str | None:
    """None: everybody's. Raises ApiError 404, also for one that is not the caller's business."""
    if of is None or of == tenant:
        return tenant
    caller = caller_of(http)
    if not (caller.operator and Scope.ADMIN in caller.scopes):
        raise ApiError(404, "not_found", f"There is no tenant {of!r}.", param="of")
    if of == usage.ANY:
        return None
    if session.get(Tenant, of) is None:
        raise ApiError(404, "not_found", f"There is no tenant {of!r}.", param="of")
    return of


def _row(line: Line, by: list[Dimension]) -> UsageLine:
    sums = line.sums
    dimensions: Any = {each.value: value for each, value in zip(by, line.key, strict=True)}
    return UsageLine(
        **dimensions,
        start=_time(line.bucket),
        requests=sums.requests,
        answers=sums.answers,
        failed=sums.failed,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        completion_tokens=sums.completion_tokens,
        mean_queue_s=_mean(sums.queue_s, sums.answers),
        mean_first_token_s=_mean(sums.first_token_s, sums.first_tokens),
        mean_duration_s=_mean(sums.duration_s, sums.answers),
        replica_s=round(sums.replica_s, 3),
        cost=round(sums.cost, 6),
    )


def _csv(rows: list[UsageLine], by: list[Dimension]) -> str:
    left_out = {each.value for each in Dimension} - {each.value for each in by}
    names = [name for name in UsageLine.model_fields if name not in left_out]
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(row.model_dump(mode="json", include=set(names)) for row in rows)
    return text.getvalue()


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 4) if count else None


def _unix(at: datetime) -> int:
    """Times without a zone are UTC. Raises ApiError."""
    if not 1970 < at.year < 2200:
        raise bad_request("since, until: a time between 1971 and 2200.", "since")
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)
