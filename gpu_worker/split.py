"""Where the time of this replica's start went: asked for, begun, imported, loaded, first token."""

import logging
import time

from loraplex.messages import ColdStart

log = logging.getLogger(__name__)


class Split:
    """Told of each instant when it comes. One owner."""

    def __init__(self, asked_at: float | None, began: float) -> None:
        """Unix seconds; `asked_at` by the clock of who asked, which may be another machine."""
        self._began = began
        self._spawn_s = 0.0 if asked_at is None else max(0.0, began - asked_at)
        self._imported = self._loaded = began
        self._looked = False
        self._first_job: float | None = None
        self.cold_start: ColdStart | None = None

    @property
    def ready_after_s(self) -> float:
        return self._loaded - self._began

    def imported(self) -> None:
        self._imported = time.time()

    def loaded(self) -> None:
        self._loaded = time.time()
        self.cold_start = self._value(0.0)

    def looked(self, jobs: int) -> None:
        """The lane was looked at, and had so many. A replica that starts before its first job
        waits for it, which is no part of a cold start."""
        if self._first_job is None and jobs:
            self._first_job = time.time() if self._looked else self._loaded
        self._looked = True

    def first_token(self) -> None:
        """Call it with every token; only the first counts."""
        if self._first_job is None or (self.cold_start and self.cold_start.first_token_s):
            return
        self.cold_start = split = self._value(time.time() - self._first_job)
        log.info(
            "cold start: spawn %.3f s, import %.3f s, load %.3f s, first token %.3f s",
            *(split.spawn_s, split.import_s, split.load_s, split.first_token_s),
        )

    def _value(self, first_token_s: float) -> ColdStart:
        parts = (
            self._spawn_s,
            self._imported - self._began,
            self._loaded - self._imported,
            first_token_s,
        )
        return ColdStart(*(round(max(0.0, part), 4) for part in parts))
