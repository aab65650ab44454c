"""`Prefer: wait=N` (RFC 7240): who can't hold a connection gets 202 and comes for it later."""

import re

from fastapi import Request
from fastapi.responses import JSONResponse

from api.errors import bad_request

_LONGEST_S = 600


class Later(Exception):
    """The time that the client wanted to wait has passed, and its request still runs."""

    def __init__(self, request: str, wait_s: float) -> None:
        super().__init__(request)
        self.request = request
        self.wait_s = wait_s


def wait_of(http: Request) -> float | None:
    """Seconds that a client wants to wait for a whole answer; `respond-async` alone: none. None: as
    long as it takes. Raises ApiError."""
    wanted = [each.strip().lower() for each in http.headers.get("prefer", "").split(",")]
    for each in wanted:
        if each.startswith("wait"):
            found = re.fullmatch(r"wait\s*=\s*([0-9]{1,4})", each, re.ASCII)
            if found is None or int(found[1]) > _LONGEST_S:
                raise bad_request(f"Prefer: wait=N, N from 0 to {_LONGEST_S} seconds.", "Prefer")
            return float(found[1])
    return 0.0 if "respond-async" in wanted else None


async def come_later(http: Request, later: Exception) -> JSONResponse:
    assert isinstance(later, Later)
    path = f"/api/v1/requests/{later.request}"
    headers = {"location": f"{path}/answer", "retry-after": "1", "x-request-id": later.request}
    headers["preference-applied"] = f"wait={later.wait_s:g}"
    body = {"id": later.request, "object": "request", "status": path, "answer": f"{path}/answer"}
    return JSONResponse(body, 202, headers)
