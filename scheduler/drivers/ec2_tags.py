"""What an instance's tags say: which replica it is. `infra/ec2/boot.sh` reads them on it."""

import base64
import json
from collections.abc import Iterator, Mapping

from scheduler.drivers.base import ReplicaSpec

INSTALLATION = "loraplex:installation"
REPLICA = "loraplex:replica"
POOL = "loraplex:pool"
LANE = "loraplex:lane"
STOPPED = "loraplex:stopped"  # it is forgotten
_SETTINGS = "loraplex:settings-"  # and a number
_LONGEST = 256  # characters of a tag's value
_MOST = 50  # tags


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
