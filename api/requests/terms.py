"""What a client says in headers of how its request is to be treated."""

import hashlib
import re
from dataclasses import dataclass

from fastapi import Request

from api.errors import bad_request
from api.requests.later import wait_of
from loraplex.settings import ApiSettings

_MOST_GRACE_S = 600.0
_AFTER_DEADLINE_S = 60.0
_EVENT_ID = re.compile(r"([0-9a-z]{1,64}):(\d{1,9}(?:\.\d{1,9}){0,127})", re.ASCII)


@dataclass(frozen=True, slots=True)
class LastEvent:
    """Of an event stream that broke off: the request, and the positions that were received."""

    request: str
    positions: list[int]


@dataclass(frozen=True, slots=True)
class Terms:
    timeout_s: float
    grace_s: float  # how long the client may be away before its request is stopped
    idempotency_key: str | None = None
    last_event: LastEvent | None = None


def terms(http: Request, settings: ApiSettings, *, returns: bool = True) -> Terms:
    """`returns`: clients of this kind may come back.

    Raises ApiError for a header that can't be honoured.
    """
    headers = http.headers
    key = headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise bad_request("Idempotency-Key: 1 to 255 characters.", "Idempotency-Key")
    timeout_s = _seconds(http, "x-request-timeout-seconds", settings.request_timeout_s)
    if timeout_s == 0:
        raise bad_request("x-request-timeout-seconds must be over 0.", "x-request-timeout-seconds")
    # OpenAI's SDKs never come back for a stream: what their users leave is stopped at once.
    returns = key is not None or (returns and "x-stainless-lang" not in headers)
    usual_s = settings.grace_s if returns else 0.0
    grace_s = min(_seconds(http, "x-grace-seconds", usual_s), _MOST_GRACE_S)
    if wait_of(http) is not None:  # it comes for the answer, if it is that it took too long
        grace_s = max(grace_s, timeout_s + _AFTER_DEADLINE_S)
    return Terms(
        min(timeout_s, settings.request_timeout_s),
        grace_s,
        key,
        _last_event(headers.get("last-event-id")),
    )


def request_id(deployment_id: str, unique: str) -> str:
    """Begins with its deployment, so that its lane can be found by it."""
    return deployment_id.removeprefix("dep-") + unique


def deployment_of(request: str) -> str:
    return f"dep-{request[:12]}"


def unique_by(tenant: str, idempotency_key: str) -> str:
    """The rest of a request's id: the same for the same key of the same tenant."""
    return hashlib.sha256(f"{len(tenant)}:{tenant}{idempotency_key}".encode()).hexdigest()[:24]


def _seconds(http: Request, name: str, default: float) -> float:
    given = http.headers.get(name)
    if given is None:
        return default
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", given, re.ASCII):
        raise bad_request(f"{name}: seconds, as a decimal number below a million.", name)
    return float(given)


def _last_event(given: str | None) -> LastEvent | None:
    if not given:
        return None
    match = _EVENT_ID.fullmatch(given)
    if match is None:
        raise bad_request("Last-Event-ID is not an id of an event of ours.", "Last-Event-ID")
    return LastEvent(match[1], [int(position) for position in match[2].split(".")])
