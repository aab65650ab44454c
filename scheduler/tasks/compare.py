"""What other laws would have made of a deployment's recorded traffic."""

import time

import msgspec
from sqlmodel import Session

from loraplex.broker.connection import connect as connect_redis
from loraplex.broker.scaler import ScalerBroker
from loraplex.database import connect
from loraplex.entities import Deployment
from loraplex.explanation import decode_explanation
from scheduler.comparison import arrivals_of, compare
from scheduler.observe import scaling_of
from scheduler.tasks.app import app, settings

_engine = connect(settings.database)
_broker = ScalerBroker(connect_redis(settings.redis_url), "compare")


@app.task
def compare_laws(deployment_id: str) -> None:
    """Safe to run twice: the later result stands."""
    with Session(_engine) as session:
        deployment = session.get(Deployment, deployment_id)
        if deployment is None:
            return
        scaling, lane = scaling_of(deployment), deployment.lane
    raw = _broker.decision(deployment_id)
    known = decode_explanation(raw) if raw else None
    cold_start_s = known.cold_start_s if known else settings.cold_start_s
    slots = int(known.inputs.get("slots", 16)) if known else 16
    found = compare(
        arrivals_of(_broker.traffic(lane)), scaling, slots, max(cold_start_s, 0.1), time.time()
    )
    _broker.keep_comparison(deployment_id, msgspec.msgpack.encode(found))
