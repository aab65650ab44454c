"""A driver is three verbs, idempotent by replica id."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Running:
    """A replica that the driver knows of; `alive` False: it has ended by itself."""

    replica: str
    alive: bool
    log_tail: str = ""


class Driver(Protocol):
    def start(self, replica: str, lane: str) -> None:
        """Start a replica of a lane. A second call for the same replica does nothing."""

    def stop(self, replica: str) -> None:
        """End a replica now and forget it. Safe for one that is gone."""

    def list(self) -> list[Running]:
        """Every replica that was started and not yet stopped, also ended ones."""
