"""What a cold start leaves for after its first token: it makes later steps faster, not right."""

import time
from collections.abc import Callable, Iterable

_BUDGET_S = 0.01  # beside a step; one piece may take longer


class Later:
    """Pieces of work, done in order between steps."""

    def __init__(self, pieces: Iterable[Callable[[], None]]) -> None:
        self._pieces = list(reversed(list(pieces)))
        self.due = False  # the first token is out

    def go_on(self) -> None:
        """As many as the budget allows, if they are due; one at least."""
        deadline = time.monotonic() + _BUDGET_S
        while self._pieces and self.due:
            self._pieces.pop()()
            if time.monotonic() > deadline:
                return
