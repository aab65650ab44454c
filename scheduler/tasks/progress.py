"""How far a fetch is, told in its deployment's row while it runs."""

import time

from sqlalchemy import Engine, case, update
from sqlmodel import Session, col

from loraplex.entities import Deployment
from loraplex.status import Status

_EVERY_S = 1.0


class ProgressRow:
    """Called with what is being done and how far it is (0 to 1); writes at most once a second."""

    def __init__(self, database: Engine, deployment_id: str) -> None:
        self._database = database
        self._deployment_id = deployment_id
        self._written_at = 0.0

    def __call__(self, doing: str, progress: float | None) -> None:
        if time.monotonic() - self._written_at < _EVERY_S:
            return
        self._written_at = time.monotonic()
        pending = col(Deployment.status) == Status.PENDING.value
        values = {
            "progress": progress,
            "reason": case((pending, doing), else_=col(Deployment.reason)),
        }
        with Session(self._database) as session:
            wanted = update(Deployment).where(col(Deployment.id) == self._deployment_id)
            session.execute(wanted.values(**values))
            session.commit()
