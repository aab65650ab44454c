"""An operator's redaction, as `LORAPLEX_REDACT` names one."""

import json
from typing import Any


def redact(exchange: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = json.loads(json.dumps(exchange).replace("Klaus", "[name]"))
    return found
