"""Virtual time: a heap of events, nothing else."""

import heapq
from collections.abc import Callable


class Loop:
    """Events run in the order of their times, and those of one time in the order they were made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0

    def at(self, time: float, event: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._events, (max(time, self.now), self._made, event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.at(self.now + seconds, event)

    def run(self, until: float) -> None:
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, event = heapq.heappop(events)
            event()
        self.now = until
