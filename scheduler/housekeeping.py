"""What nobody else cleans up: requests of API processes that died, old tokens, old rows."""

import logging
import time
from collections.abc import Sequence

from loraplex.broker.scaler import ScalerBroker
from loraplex.keys import Lane
from scheduler.rows import SqlRows

log = logging.getLogger(__name__)

DEAD_API_S = 10.0  # an API process that is silent for so long is dead; it speaks every 2 s
TRIM_EVERY_S = 30.0


class Housekeeping:
    def __init__(self, broker: ScalerBroker, rows: SqlRows, retention_s: float) -> None:
        self._broker = broker
        self._rows = rows
        self._retention_s = retention_s
        self._trimmed_at = 0.0
        self._sees_since = time.monotonic()

    def blind(self) -> None:
        """Redis was away, or another scaler led: API processes may have been silent for that."""
        self._sees_since = time.monotonic()

    def run(self, lanes: Sequence[Lane]) -> None:
        """Cheap when there is nothing to do. Raises when Redis is away."""
        if time.monotonic() - self._sees_since > DEAD_API_S:
            self._leave_for_dead_apis(lanes)
        if time.monotonic() - self._trimmed_at > TRIM_EVERY_S:
            self._trimmed_at = time.monotonic()
            self._broker.trim(lanes, self._retention_s)
            self._rows.prune()

    def _leave_for_dead_apis(self, lanes: Sequence[Lane]) -> None:
        for api_id, silent_s in self._broker.silent_apis(DEAD_API_S).items():
            results = [self._broker.leave_for(lane, api_id, silent_s) for lane in lanes]
            stopped, kept = (sum(each) for each in zip((0, 0), *results, strict=True))
            if stopped:
                log.info("%s is gone: stopped %d requests that nobody came for", api_id, stopped)
            if not kept:
                self._broker.forget_api(api_id)
