"""The eight statuses of a deployment, the events that move it, and the one transition table.

Nothing else changes a status: `loraplex.lifecycle.apply` looks here, writes the row, and stores
the change as an event. (Status, event) pairs that aren't in the table are refused.
"""

from enum import StrEnum


class Status(StrEnum):
    PENDING = "pending"  # record exists, artefacts being checked or fetched
    INITIALIZING = "initializing"  # the first replica is starting
    READY = "ready"  # at least one replica up
    STANDBY = "standby"  # no replica, will scale up on request
    STOPPED = "stopped"  # no replica, will not scale up until started
    ERRORED = "errored"  # no replica, the last start ended in an error
    UPDATING = "updating"  # replicas up, a change is rolling out
    DELETED = "deleted"  # gone; its name can be reused


class Event(StrEnum):
    ARTEFACTS_READY = "artefacts_ready"
    ARTEFACTS_FAILED = "artefacts_failed"
    ARTEFACTS_MISSING = "artefacts_missing"  # none of its revisions can start
    REPLICA_STARTING = "replica_starting"  # the first replica was asked for
    REPLICA_READY = "replica_ready"
    LAST_REPLICA_GONE = "last_replica_gone"  # stopped or died; none is left
    START_FAILED = "start_failed"  # given up after backed-off tries, or no use in trying
    CHANGE_ROLLOUT = "change_rollout"  # a change needs new replicas
    ROLLED_OUT = "rolled_out"  # all replicas have the change
    ROLLOUT_FAILED = "rollout_failed"  # it was taken back; the old replicas serve on
    STOP = "stop"
    START = "start"
    DELETE = "delete"


_S, _E = Status, Event

# A change is fetched, and taken back if it can't be, beside whatever serves meanwhile.
_WITH_A_REVISION = (_S.STANDBY, _S.INITIALIZING, _S.READY, _S.UPDATING)

TRANSITIONS: dict[tuple[Status, Event], Status] = {
    (_S.PENDING, _E.ARTEFACTS_READY): _S.STANDBY,
    (_S.PENDING, _E.ARTEFACTS_FAILED): _S.ERRORED,
    (_S.PENDING, _E.CHANGE_ROLLOUT): _S.PENDING,
    (_S.PENDING, _E.STOP): _S.STOPPED,
    **{(status, _E.ARTEFACTS_READY): status for status in _WITH_A_REVISION},
    **{(status, _E.ARTEFACTS_FAILED): status for status in _WITH_A_REVISION},
    (_S.UPDATING, _E.ARTEFACTS_FAILED): _S.READY,
    (_S.STANDBY, _E.ARTEFACTS_MISSING): _S.PENDING,
    (_S.STANDBY, _E.REPLICA_STARTING): _S.INITIALIZING,
    (_S.STANDBY, _E.REPLICA_READY): _S.READY,  # a draining replica was kept after all
    (_S.STANDBY, _E.CHANGE_ROLLOUT): _S.STANDBY,
    (_S.STANDBY, _E.STOP): _S.STOPPED,
    (_S.INITIALIZING, _E.REPLICA_READY): _S.READY,
    (_S.INITIALIZING, _E.LAST_REPLICA_GONE): _S.STANDBY,
    (_S.INITIALIZING, _E.START_FAILED): _S.ERRORED,
    (_S.INITIALIZING, _E.CHANGE_ROLLOUT): _S.INITIALIZING,
    (_S.INITIALIZING, _E.ROLLOUT_FAILED): _S.STANDBY,  # what served before starts when asked for
    (_S.INITIALIZING, _E.STOP): _S.STOPPED,
    (_S.READY, _E.LAST_REPLICA_GONE): _S.STANDBY,
    (_S.READY, _E.CHANGE_ROLLOUT): _S.UPDATING,
    (_S.READY, _E.ROLLOUT_FAILED): _S.READY,
    (_S.READY, _E.STOP): _S.STOPPED,
    (_S.UPDATING, _E.ROLLED_OUT): _S.READY,
    (_S.UPDATING, _E.ROLLOUT_FAILED): _S.READY,
    (_S.UPDATING, _E.LAST_REPLICA_GONE): _S.STANDBY,
    (_S.UPDATING, _E.START_FAILED): _S.ERRORED,
    (_S.UPDATING, _E.CHANGE_ROLLOUT): _S.UPDATING,  # another one on top
    (_S.UPDATING, _E.STOP): _S.STOPPED,
    (_S.STOPPED, _E.START): _S.STANDBY,
    (_S.STOPPED, _E.CHANGE_ROLLOUT): _S.STOPPED,
    (_S.ERRORED, _E.START): _S.PENDING,
    (_S.ERRORED, _E.CHANGE_ROLLOUT): _S.PENDING,
    (_S.ERRORED, _E.STOP): _S.STOPPED,
    **{(status, _E.DELETE): _S.DELETED for status in _S if status is not _S.DELETED},
}

ADMITTING = frozenset({_S.PENDING, _S.INITIALIZING, _S.READY, _S.STANDBY, _S.UPDATING})
"""Statuses in which a request is queued; in the others it is refused with the way out."""


def next_status(status: Status, event: Event) -> Status | None:
    """The status after `event`, or None where the table has no such move."""
    return TRANSITIONS.get((status, event))
