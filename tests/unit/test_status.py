"""The transition table: every (status, event) has a defined answer."""

import pytest

from loraplex.status import ADMITTING, TRANSITIONS, Event, Status, next_status

S, E = Status, Event

EXPECTED = {
    S.PENDING: {
        E.ARTEFACTS_READY: S.STANDBY,
        E.ARTEFACTS_FAILED: S.ERRORED,
        E.CHANGE_ROLLOUT: S.PENDING,
        E.STOP: S.STOPPED,
    },
    S.STANDBY: {
        E.ARTEFACTS_READY: S.STANDBY,
        E.ARTEFACTS_FAILED: S.STANDBY,
        E.ARTEFACTS_MISSING: S.PENDING,
        E.REPLICA_STARTING: S.INITIALIZING,
        E.REPLICA_READY: S.READY,
        E.CHANGE_ROLLOUT: S.STANDBY,
        E.STOP: S.STOPPED,
    },
    S.INITIALIZING: {
        E.ARTEFACTS_READY: S.INITIALIZING,
        E.ARTEFACTS_FAILED: S.INITIALIZING,
        E.REPLICA_READY: S.READY,
        E.LAST_REPLICA_GONE: S.STANDBY,
        E.START_FAILED: S.ERRORED,
        E.ROLLOUT_FAILED: S.STANDBY,
        E.CHANGE_ROLLOUT: S.INITIALIZING,
        E.STOP: S.STOPPED,
    },
    S.READY: {
        E.ARTEFACTS_READY: S.READY,
        E.ARTEFACTS_FAILED: S.READY,
        E.ROLLOUT_FAILED: S.READY,
        E.LAST_REPLICA_GONE: S.STANDBY,
        E.CHANGE_ROLLOUT: S.UPDATING,
        E.STOP: S.STOPPED,
    },
    S.UPDATING: {
        E.ROLLED_OUT: S.READY,
        E.ROLLOUT_FAILED: S.READY,
        E.ARTEFACTS_READY: S.UPDATING,
        E.ARTEFACTS_FAILED: S.READY,
        E.CHANGE_ROLLOUT: S.UPDATING,
        E.LAST_REPLICA_GONE: S.STANDBY,
        E.START_FAILED: S.ERRORED,
        E.STOP: S.STOPPED,
    },
    S.STOPPED: {E.START: S.STANDBY, E.CHANGE_ROLLOUT: S.STOPPED},
    S.ERRORED: {E.START: S.PENDING, E.STOP: S.STOPPED, E.CHANGE_ROLLOUT: S.PENDING},
    S.DELETED: {},
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_every_pair_moves_as_specified_or_not_at_all(status: Status, event: Event) -> None:
    deleted = {E.DELETE: S.DELETED} if status is not S.DELETED else {}
    assert next_status(status, event) == (EXPECTED[status] | deleted).get(event)


def test_nothing_leaves_deleted() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is S.DELETED]


def test_every_status_but_pending_is_reached_by_some_event() -> None:
    assert set(TRANSITIONS.values()) == set(Status)


def test_requests_are_queued_only_where_a_replica_can_come() -> None:
    assert set(Status) - ADMITTING == {S.STOPPED, S.ERRORED, S.DELETED}
