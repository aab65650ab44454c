"""What this replica logs goes to its lane, too: whoever may see the deployment reads it there,
on whatever machine it runs. A part of it may be lost; the process' own log has all."""

import logging
import threading
from collections import deque
from itertools import islice

from loraplex.broker.connection import Unavailable
from loraplex.broker.worker import WorkerBroker

_EACH_S = 0.5
_MOST = 1000  # lines that wait
_LONGEST = 2000  # characters


class LaneLog(logging.Handler):
    def __init__(self, broker: WorkerBroker, replica: str) -> None:
        super().__init__()
        self._broker = broker
        self._replica = replica
        self._lines: deque[str] = deque(maxlen=_MOST)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send_on, name="lane-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # of who logs: as logging's own handlers have it
            self.handleError(record)
            return
        if len(line) > _LONGEST:  # the end of a traceback says what it is
            line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
        self._lines.append(line)

    def close(self) -> None:
        """Send what is left."""
        self._end.set()
        self._thread.join()
        super().close()

    def _send_on(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(_EACH_S)
            lines = list(islice(self._lines, len(self._lines)))
            if not lines:
                continue
            try:
                self._broker.log(self._replica, lines)
            except Unavailable:  # they are tried again, the oldest go
                continue
            for _ in lines:
                if self._lines:
                    self._lines.popleft()
