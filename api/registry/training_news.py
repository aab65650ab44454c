"""What a fine-tuning job tells, as it tells it: the same for SSE and for Predibase's websocket."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.registry import trainings
from api.state import State
from loraplex.entities import UNFINISHED, TrainingEvent, TrainingJob

LOOK_EACH_S = 1.0
_MOST, _MOST_OF_A_TENANT = 100, 10  # of this process: each asks the database each second
_PAGE = 1000
_watching: dict[object, str] = {}  # whose they are


@contextmanager
def watching(tenant: str) -> Iterator[None]:
    """Raises ApiError 429 where too many do."""
    mine = sum(each == tenant for each in _watching.values())
    if mine >= _MOST_OF_A_TENANT or len(_watching) >= _MOST:
        message = f"At most {_MOST_OF_A_TENANT} jobs can be watched at once."
        raise ApiError(429, "too_many", message, retry_after_s=5)
    me = object()
    _watching[me] = tenant
    try:
        yield
    finally:
        del _watching[me]


async def news(
    state: State, tenant: str, job: str, seen: int
) -> tuple[TrainingJob, Sequence[TrainingEvent], bool]:
    """The job, what it has told after `seen`, and whether that is all there will be. Raises
    ApiError 404."""

    def read() -> tuple[TrainingJob, Sequence[TrainingEvent], bool]:
        with Session(state.database, expire_on_commit=False) as session:
            # The row first: what is told after it belongs to it, too.
            row = trainings.need(session, tenant, job)
            after = (TrainingEvent.job_id == row.id, col(TrainingEvent.id) > seen)
            wanted = select(TrainingEvent).where(*after).order_by(col(TrainingEvent.id))
            told = session.exec(wanted.limit(_PAGE)).all()
        return row, told, row.state not in UNFINISHED and not told

    return await run_in_threadpool(read)
