"""`Prefer: wait=N` (RFC 7240): who can't hold a connection gets 202 and comes for it later."""

import math
import re
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from api.errors import bad_request
from api.requests.queues import Place

_LONGEST_S = 600


class Later(Exception):
    """The time that the client wanted to wait has passed, and its request still runs."""

    def __init__(self, request: str, wait_s: float, place: Place | None = None) -> None:
        super().__init__(request)
        self.request = request
        self.wait_s = wait_s
        self.place = place  # in the queue


def wait_of(http: Request) -> float | None:
    """Seconds that a client wants to wait for a whole answer; `respond-async` alone: none. None: as
    long as it takes. Raises ApiError."""
    wanted = _preferences(http)
    if (wait := wanted.get("wait")) is not None:
        if not re.fullmatch("[0-9]{1,4}", wait, re.ASCII) or int(wait) > _LONGEST_S:
            raise bad_request(f"Prefer: wait=N, N from 0 to {_LONGEST_S} seconds.", "Prefer")
        return float(wait)
    return 0.0 if "respond-async" in wanted else None


def _preferences(http: Request) -> dict[str, str]:
    """By name; the first of each counts, parameters are of no use here."""
    found: dict[str, str] = {}
    for each in ",".join(http.headers.getlist("prefer")).lower().split(","):
        name, _, value = each.partition(";")[0].partition("=")
        found.setdefault(name.strip(), value.strip().strip('"'))
    return found


async def come_later(http: Request, later: Exception) -> JSONResponse:
    assert isinstance(later, Later)
    path = f"/api/v1/requests/{later.request}"
    headers = {"location": f"{path}/answer", "retry-after": "1", "x-request-id": later.request}
    headers["preference-applied"] = f"wait={later.wait_s:g}"
    body: dict[str, Any] = {"id": later.request, "object": "request", "status": path}
    body["answer"] = f"{path}/answer"
    if later.place is not None:
        headers |= later.place.headers
        if later.place.eta_s is not None:
            headers["retry-after"] = str(min(max(1, math.ceil(later.place.eta_s)), _LONGEST_S))
        body["queue"] = {"ahead": later.place.ahead, "eta_s": later.place.eta_s}
    return JSONResponse(body, 202, headers)
