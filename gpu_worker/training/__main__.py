"""`python -m gpu_worker.training FOLDER [PARENT]`: 0 when done, 75 when it is to go on later."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from gpu_worker.training.config import YIELD, YIELDED, read


def main(folder: Path, parent: int) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.nice(19)  # on a CPU, whoever serves goes first
    threading.Thread(target=_watch_parent, args=[parent], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: (folder / YIELD).touch())
    from gpu_worker.training.run import train  # torch takes seconds: SIGTERM is heard before

    return 0 if train(folder, read(folder)) else YIELDED


def _watch_parent(parent: int) -> None:
    """Nobody would hear of what is learned when who started it has died."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(YIELDED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid()))
