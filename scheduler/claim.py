"""Rows of work (imports, trainings) that one task runs at a time, however often it is asked for.

The row tells whose it is. Who runs it gives a sign every second (`signs.py`) and holds a lock on
the work's folder: one that was taken for dead and lives finds that it isn't its any more, and its
heir waits until it has let go.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Engine, Update, func, or_, update
from sqlmodel import Session, SQLModel, col, select

from loraplex import storage_quota
from loraplex.compare_and_set import changed
from loraplex.entities import UNFINISHED, AdapterImport, TrainingJob, WorkState, utc_now
from loraplex.locked import is_locked
from scheduler.signs import Signs

Row = TypeVar("Row", AdapterImport, TrainingJob)


class Claim(Generic[Row]):
    """`folder`: the work's, the same after a worker's death. `news`: what each sign tells."""

    def __init__(
        self,
        database: Engine,
        table: type[Row],
        row_id: str,
        folder: Path,
        news: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._database = database
        self._table: type[Row] = table
        self._id = row_id
        self._folder = folder
        self._me = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._signs = Signs(row_id, lambda: self.write(**news()))

    @property
    def lost(self) -> bool:
        """It was cancelled, or is another one's."""
        return self._signs.lost.is_set()

    def take(self, silent_s: float, most: int, lock: str, *others: ColumnElement[bool]) -> bool:
        """False: it has ended, another one runs it that gave a sign within so long, or `most` of
        the `others` run. They are counted and taken by one at a time, under a tenant's `lock`."""
        table = self._table
        running = select(func.count()).where(
            col(table.state) == WorkState.RUNNING.value, col(table.id) != self._id, *others
        )
        silent = col(table.beat_at) < utc_now() - timedelta(seconds=silent_s)
        free = or_(col(table.state) == WorkState.QUEUED.value, silent)
        with Session(self._database) as session:
            storage_quota.lock(session, lock)
            if session.exec(running).one() >= most:
                return False
            return self._taken(session, free)

    def take_if(self, *allowed: ColumnElement[bool], **also: Any) -> bool:
        """The same of one that waits, where the row itself says that it may be run."""
        queued = col(self._table.state) == WorkState.QUEUED.value
        with Session(self._database) as session:
            return self._taken(session, queued, *allowed, **also)

    def _taken(self, session: Session, *free: ColumnElement[bool], **also: Any) -> bool:
        table = self._table
        wanted = update(table).where(
            col(table.id) == self._id, col(table.state).in_(UNFINISHED), *free
        )
        mine = {"state": WorkState.RUNNING.value, "runner": self._me, "beat_at": utc_now()}
        done = changed(session, wanted.values(attempts=col(table.attempts) + 1, **mine, **also))
        session.commit()
        return bool(done)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """While it is run. False: another run is still in its folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            if is_locked(folder):
                with self._signs.given():
                    yield True
            else:
                yield False
        finally:
            os.close(folder)

    def write(self, *also: SQLModel, **values: Any) -> bool:
        """If it is still this run's; with rows of other tables."""
        table = self._table
        mine: Update = update(table).where(
            col(table.id) == self._id,
            col(table.runner) == self._me,
            col(table.state) == WorkState.RUNNING.value,
        )
        with Session(self._database) as session:
            done = changed(session, mine.values(beat_at=utc_now(), **values))
            session.add_all(also if done else ())
            session.commit()
        return bool(done)

    def leave(self, **values: Any) -> None:
        """When it has ended, if no other run has taken it."""
        table = self._table
        mine = update(table).where(
            col(table.id) == self._id,
            col(table.runner) == self._me,
            col(table.state) != WorkState.RUNNING.value,
        )
        with Session(self._database) as session:
            session.execute(mine.values(**values))
            session.commit()

    def row(self) -> Row:
        with Session(self._database, expire_on_commit=False) as session:
            found: Row = session.get_one(self._table, self._id)
            return found


def to_be_resumed(database: Engine, table: type[Row], silent_s: float) -> list[str]:
    """The oldest first; each is told once within so many seconds. Who ran one and lives finds it
    taken away."""
    now = utc_now()
    silent = (
        col(table.state).in_(UNFINISHED),
        col(table.beat_at) < now - timedelta(seconds=silent_s),
    )
    found = []
    with Session(database) as session:
        oldest = select(table.id).where(*silent).order_by(col(table.created_at))
        for row_id in session.exec(oldest).all():
            one = update(table).where(col(table.id) == row_id, *silent)
            again = one.values(state=WorkState.QUEUED.value, runner="", beat_at=now)
            if changed(session, again):
                found.append(row_id)
            session.commit()
    return found
