"""What a scaling law takes and gives: values, the same for ours (`law.py`) and for those that it is
compared with (`simulator/baselines.py`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Scaling:
    """A deployment's knobs, as its owner set them."""

    min_replicas: int = 0
    max_replicas: int = 1
    cooldown_s: float = 3600.0  # no idle replica is kept longer
    threshold: int = 16  # requests (queued + running) that are one replica's share
    target_wait_s: float = 10.0  # a request should not queue for longer
    learns: bool = True  # how long to keep idle ones; else always as long as the cooldown
    cold_start_weight: float = 3.0  # idle seconds that one second of a cold start is worth
    scheduled: bool = False  # the bounds are a schedule's

    @property
    def whose_min(self) -> str:
        """For sentences."""
        return f"{self.min_replicas}{' by its schedule' if self.scheduled else ''}"


@dataclass(frozen=True, slots=True)
class Observation:
    """A lane at one instant."""

    waiting: int  # jobs that no replica has taken
    running: int
    ready: int  # replicas that serve; draining ones don't count
    starting: int  # asked for, not serving yet
    slots: int  # requests that one replica runs at once
    arrived: int  # jobs since the lane exists: a counter
    cold_start_s: float  # from asking for a replica to its first job, as measured here
    starting_s: float = 0.0  # for how long those that start have done so, together


@dataclass(frozen=True, slots=True)
class Decision:
    replicas: int  # starting and ready ones together
    reason: str  # a sentence for the deployment's owner
    inputs: Mapping[str, float] = field(default_factory=dict)  # what it was decided by


class Law(Protocol):
    """Pure: no I/O, no clock, no state of its own."""

    def __call__(
        self, cfg: Scaling, seen: Observation, memory: Any, now: float
    ) -> tuple[Decision, Any]:
        """How many replicas there should be, and what to remember for the next call.

        `memory` is None at first; `now` is in seconds and never goes back.
        """
