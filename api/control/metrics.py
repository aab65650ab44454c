"""/metrics of this process, and where all processes serve theirs; with an operator's key."""

import time

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from api.security import Operator
from api.state import StateDep
from loraplex.metrics.target import FORGOTTEN_AFTER_S, Target

router = APIRouter(tags=["metrics"])
targets_router = APIRouter(prefix="/metrics", tags=["metrics"])


@router.get("/metrics", response_class=Response)
def metrics(_: Operator, state: StateDep) -> Response:
    """In Prometheus' text format; the same as on this process' own port."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@targets_router.get("/targets")
async def targets(_: Operator, state: StateDep) -> list[dict[str, object]]:
    """All processes that serve metrics, as Prometheus' `http_sd_configs` wants it."""
    found = await state.broker.targets(time.time() - FORGOTTEN_AFTER_S)
    return [{"targets": [each.address], "labels": _labels(each)} for each in found]


def _labels(target: Target) -> dict[str, str]:
    labels = {"process": target.process}
    if target.replica:
        labels |= {"replica": target.replica, "deployment_id": target.deployment}
    return labels
