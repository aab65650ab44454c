"""/api/v1/deployments/{name}/charts: what happened over time."""

import gzip
import time
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from sqlmodel import Session

from api.requests.resolve import need_deployment
from api.security import ForDeployments
from api.state import StateDep
from loraplex import chart_points, charts
from loraplex.charts import RANGES_S

router = APIRouter(prefix="/deployments", tags=["deployments"])

Range = Literal["15m", "1h", "6h", "24h", "7d"]


@router.get("/{name}/charts")
def get(
    name: str,
    tenant: ForDeployments,
    state: StateDep,
    range: Range = "1h",
    since: Annotated[
        int | None, Query(ge=0, lt=2**40, description="Only points from then on, Unix seconds.")
    ] = None,
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Columns of equal length, one value every `step_s` seconds (5; for 7d 60). null: nobody
    looked; no replica or no answer to tell of. The latest points are still incomplete."""
    now = int(time.time())
    step_s = charts.step_for(RANGES_S[range])
    begin = max(now - RANGES_S[range], since or 0)
    with Session(state.database) as session:
        deployment = need_deployment(session, tenant, name)
        columns = chart_points.read(session, deployment.id, begin, now, step_s)
    body = {"step_s": step_s, "range_s": RANGES_S[range], "columns": columns}
    encoded, headers = msgspec.json.encode(body), {"vary": "accept-encoding"}
    if "gzip" in accept_encoding:  # a day is 2 MB
        encoded = gzip.compress(encoded, compresslevel=1)
        headers["content-encoding"] = "gzip"
    return Response(encoded, media_type="application/json", headers=headers)
