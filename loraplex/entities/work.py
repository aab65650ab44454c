"""States of what task workers run: imports, trainings."""

from enum import StrEnum


class WorkState(StrEnum):
    QUEUED = "queued"  # also what has yielded, and what its worker died of
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (WorkState.QUEUED.value, WorkState.RUNNING.value)
