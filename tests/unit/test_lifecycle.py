"""Moves of a deployment by two processes at once."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session, SQLModel, create_engine, select

from loraplex import lifecycle
from loraplex.entities import Deployment
from loraplex.status import Event, Status


@pytest.fixture
def sessions() -> Iterator[tuple[Session, Session]]:
    """Of a user and of the scaler, over one database with one pending deployment."""
    database = create_engine("sqlite://")
    SQLModel.metadata.create_all(database)
    with Session(database, expire_on_commit=False) as user, Session(database) as scaler:
        bounds = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1, "scale_up_threshold": 1}
        user.add(Deployment(name="d", tenant_id="t", base_model="m", **bounds))
        user.commit()
        yield user, scaler


def test_a_users_word_holds_though_the_scaler_was_faster(
    sessions: tuple[Session, Session],
) -> None:
    user, scaler = sessions
    seen = user.exec(select(Deployment)).one()
    other = scaler.exec(select(Deployment)).one()
    failed = Event.ARTEFACTS_FAILED
    assert lifecycle.apply(scaler, other, failed, actor="scaler", reason="gone") is Status.ERRORED
    assert seen.status == Status.PENDING, "what the user saw is old"
    after = lifecycle.demand(user, seen, Event.DELETE, actor="user:t", reason="")
    assert after is Status.DELETED


def test_what_the_table_has_not_stays_refused(sessions: tuple[Session, Session]) -> None:
    user, _ = sessions
    seen = user.exec(select(Deployment)).one()
    assert lifecycle.demand(user, seen, Event.START, actor="user:t", reason="") is None
    assert seen.status == Status.PENDING
