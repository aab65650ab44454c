"""Jobs that were in the batch of a replica that died run alone, until they have proved harmless.

One of them may be what killed it: alone, it takes nobody with it. What else the replica has waits
meanwhile, for a prompt and a few tokens of each suspect. Redis is told before a suspect runs, so
that its death is blamed on the right job; and only when the engine has nothing else under way: no
step that was launched before, no adapter or grammar of others on its way. No I/O here.
"""

from collections import deque

from loraplex.broker.interface import TakenJob

HARMLESS_AFTER = 3  # tokens: the step that died is among them, also where steps overlap
MOST_DEATHS_ALONE = 2


class Probation:
    """`running` is the one that runs alone now; `announced` the one that does so next."""

    def __init__(self) -> None:
        self.running: TakenJob | None = None
        self._waiting: deque[TakenJob] = deque()
        self._announced: TakenJob | None = None
        self._left = 0
        self._mark = ""

    @property
    def idle(self) -> bool:
        return self.running is None and self._announced is None and not self._waiting

    @staticmethod
    def suspects(job: TakenJob) -> bool:
        return job.deliveries > 1

    def add(self, job: TakenJob) -> None:
        self._waiting.append(job)

    def start(self) -> TakenJob | None:
        """The suspect whose turn it is now, if it was announced before."""
        if self.running is not None or self._announced is None:
            return None
        self.running, self._announced = self._announced, None
        self._left = HARMLESS_AFTER
        return self.running

    def produced(self, request: str, tokens: int) -> None:
        """New tokens of any request."""
        if self.running is not None and self.running.job.request == request:
            self._left -= tokens
            if self._left <= 0:
                self.running = None

    def ended(self, request: str) -> None:
        """A request has ended, however it did."""
        if self.running is not None and self.running.job.request == request:
            self.running = None
        self._waiting = deque(each for each in self._waiting if each.job.request != request)
        if self._announced is not None and self._announced.job.request == request:
            self._announced = None

    @property
    def pausing(self) -> bool:
        """A suspect's turn comes when the engine is quiet."""
        return self.running is None and self._announced is None and bool(self._waiting)

    def announcement(self, *, quiet: bool) -> str | None:
        """What the next step will run: a stream id alone, '' for all; None: as announced before."""
        if self.pausing and quiet:
            self._announced = self._waiting.popleft()
        alone = self.running or self._announced
        mark = "" if alone is None else alone.entry
        if mark == self._mark:
            return None
        self._mark = mark
        return mark
