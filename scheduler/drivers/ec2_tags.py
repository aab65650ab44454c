"""What an instance's tags say: which replica it is. `infra/ec2/boot.sh` reads them on it."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.drivers.base import ReplicaSpec

INSTALLATION = "loraplex:installation"
REPLICA = "loraplex:replica"
POOL = "loraplex:pool"
LANE = "loraplex:lane"
STOPPED = "loraplex:stopped"  # it is forgotten
WARM = "loraplex:warm"  # it was made to wait for a replica
_SETTINGS = "loraplex:settings-"  # and a number
_LONGEST = 256  # characters of a tag's value
_MOST = 50  # tags
_ALIVE = ("pending", "running")


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    state: str
    launched_at: datetime
    tags: Mapping[str, str]

    @classmethod
    def found(cls, answer: Mapping[str, Any]) -> "Instance":
        """As EC2 describes it."""
        named = {each["Key"]: each["Value"] for each in answer["Tags"]}
        return cls(answer["InstanceId"], answer["State"]["Name"], answer["LaunchTime"], named)

    @property
    def replica(self) -> str:
        """Empty: it waits for one."""
        return self.tags.get(REPLICA, "")

    @property
    def alive(self) -> bool:
        return self.state in _ALIVE

    @property
    def stopped(self) -> bool:
        return STOPPED in self.tags

    def waits_in(self, pool: str) -> bool:
        waits = WARM in self.tags and not self.replica and self.tags[POOL] == pool
        return waits and self.state not in ("shutting-down", "terminated")


def pairs(named: Mapping[str, str]) -> list[dict[str, str]]:
    """As EC2 wants tags."""
    return [{"Key": key, "Value": value} for key, value in named.items()]


def of_waiting(pool: str, installation: str) -> dict[str, str]:
    return {"Name": f"loraplex-warm-{pool}", INSTALLATION: installation, POOL: pool, WARM: "yes"}


def of(spec: ReplicaSpec, installation: str) -> dict[str, str]:
    """Raises OSError for settings that don't fit."""
    found = {
        "Name": f"loraplex-{spec.id}",
        INSTALLATION: installation,
        REPLICA: spec.id,
        POOL: spec.host,
        LANE: spec.lane,
        **dict(_written(spec.settings)),
    }
    if len(found) > _MOST or any(len(value) > _LONGEST for value in found.values()):
        raise OSError(f"{spec.id}'s settings don't fit into an instance's {_MOST} tags.")
    return found


def _written(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """JSON as URL-safe base64: a tag's value may not hold braces."""
    text = base64.urlsafe_b64encode(json.dumps(dict(settings)).encode()).decode()
    for number, first in enumerate(range(0, len(text), _LONGEST)):
        yield f"{_SETTINGS}{number}", text[first : first + _LONGEST]
