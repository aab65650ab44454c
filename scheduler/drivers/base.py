"""A driver is three verbs, idempotent by replica id; every driver passes
`tests/integration/test_drivers.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """What a replica is started with."""

    id: str
    lane: str  # name of the lane that it serves
    host: str = "local"
    slot: int = 0  # of its host: the GPU that it gets, where there are GPUs
    settings: Mapping[str, str] = field(default_factory=dict)  # LORAPLEX_* of its own


@dataclass(frozen=True, slots=True)
class Running:
    """A replica that the driver knows of; `alive` False: it has ended by itself."""

    replica: str
    alive: bool
    log_tail: str = ""  # of what has ended; of what isn't placed yet, why


class Driver(Protocol):
    def start(self, spec: ReplicaSpec) -> None:
        """Start a replica. A second call for the same id does nothing.

        Raises OSError when it can't be started now; trying again may help.
        """

    def stop(self, replica: str) -> None:
        """End a replica now and forget it. Safe for one that is gone."""

    def kill(self, replica: str) -> None:
        """Let a replica die at once, as by accident: it stays in the list, ended."""

    def list(self) -> list[Running]:
        """Every replica that was started and not yet stopped, also ended ones."""
