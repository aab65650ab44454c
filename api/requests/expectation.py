"""When a deployment without a replica is expected to serve: told to clients that wait for it."""

import time

from api.state import State
from loraplex.broker.connection import Unavailable
from loraplex.entities import Deployment
from loraplex.status import Status

_NO_REPLICA = (Status.STANDBY, Status.INITIALIZING)


async def expected_at(state: State, deployment: Deployment) -> float | None:
    """Unix seconds of this process' clock, from how long cold starts have taken here. None: a
    replica serves, or nothing is known yet."""
    if deployment.status not in _NO_REPLICA:
        return None
    try:
        known, now = await state.broker.explanation(deployment.id)
    except Unavailable:
        return None
    if known is None or known.cold_start_s <= 0:
        return None
    passed_s = now - known.starting_since if known.starting_since is not None else 0.0
    return time.time() + min(max(0.0, known.cold_start_s - passed_s), known.cold_start_s)
