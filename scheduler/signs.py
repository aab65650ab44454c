"""Signs of life of a task that takes long, by a thread of its own: whatever the task waits for, who
looks at its row sees that it lives; and it hears when the row isn't its own any more."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

SIGN_EACH_S = 1.0


class Signs:
    """`give`: write one; False: it isn't wanted any more, or another one's."""

    def __init__(self, name: str, give: Callable[[], bool]) -> None:
        self._name = name
        self._give = give
        self._ended = threading.Event()
        self.lost = threading.Event()

    @contextmanager
    def given(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name=f"signs of {self._name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SIGN_EACH_S):
            try:
                if not self._give():
                    self.lost.set()
                    return
            except SQLAlchemyError as away:
                log.warning("%s gives no sign: %s", self._name, away)
