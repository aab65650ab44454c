"""A replica that is killed by a certain request in its batch; takes gpu_worker's arguments."""

import os
import signal
import sys
from typing import Any

from gpu_worker.__main__ import main
from gpu_worker.engine.forward import Forward

POISON = "poison"  # the request's id
compute = Forward.__call__


def poisoned(self: Forward, chunks: Any, *arguments: Any, **options: Any) -> Any:
    if any(chunk.sequence.request.id == POISON for chunk in chunks):
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, chunks, *arguments, **options)


if __name__ == "__main__":
    Forward.__call__ = poisoned  # type: ignore[method-assign]
    sys.exit(main())
