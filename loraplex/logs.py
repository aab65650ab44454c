"""One way to log: a line of time, level, process and text. Prompts are never logged."""

import logging
import sys


def configure(process: str, level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)-7s {process} %(message)s",
        force=True,
    )
    for noisy in ("httpx", "alembic", "celery.redirected", "filelock"):
        logging.getLogger(noisy).setLevel("WARNING")
