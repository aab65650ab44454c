"""Login at the console: an API key, sealed in a cookie that scripts can't read.

A revoked key ends it with the next request. Requests that change something need a header that other
sites can't send without asking first (OWASP's custom-header defence), besides `SameSite=Strict`.
"""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from api.errors import ApiError
from api.keyring import Caller
from api.security import caller_of
from api.state import State, StateDep
from api.text import Text
from loraplex import __version__
from loraplex.secret_box import NotReadable

router = APIRouter(prefix="/console/session", include_in_schema=False)

COOKIE = "loraplex_session"
HEADER = "x-loraplex-console"
_SAFE = ("GET", "HEAD", "OPTIONS")


class Login(BaseModel):
    key: Annotated[Text, Field(min_length=1, max_length=512)]


class Session(BaseModel):
    """Who is logged in. `dev`: replicas may be killed here."""

    tenant: str
    scopes: list[str]
    operator: bool
    dev: bool
    version: str
    currency: bool  # prices are set


@router.post("")
async def log_in(body: Login, http: Request, response: Response, state: StateDep) -> Session:
    """Raises ApiError 401 for a key that opens nothing."""
    _check_origin(http)
    caller = await run_in_threadpool(state.keyring.find, f"Bearer {body.key}")
    age_s = int(state.settings.session_days * 86400)
    how = {"httponly": True, "samesite": "strict", "secure": http.url.scheme == "https"}
    response.set_cookie(COOKIE, state.secrets.lock(body.key), max_age=age_s, **how)  # type: ignore[arg-type]
    return _shown(state, caller)


@router.get("")
async def who(http: Request, state: StateDep) -> Session | None:
    """null: nobody is."""
    asked = COOKIE in http.cookies or "authorization" in http.headers
    return _shown(state, caller_of(http)) if asked else None


@router.delete("", status_code=204)
async def log_out(http: Request) -> Response:
    _check_origin(http)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def authorization(request: Request) -> str:
    """As if its key had been sent; "" without a cookie. Raises ApiError."""
    sealed = request.cookies.get(COOKIE)
    if sealed is None:
        return ""
    state: State = request.app.state.loraplex
    try:
        key = state.secrets.open(sealed, within_s=int(state.settings.session_days * 86400))
    except NotReadable:
        raise ApiError(401, "session_ended", "The login has ended. Log in again.") from None
    if request.method not in _SAFE:
        _check_origin(request)
    return f"Bearer {key}"


def _check_origin(request: Request) -> None:
    if HEADER not in request.headers:
        message = f"Requests with a login's cookie need the header {HEADER!r}."
        raise ApiError(403, "cross_site", message)


def _shown(state: State, caller: Caller) -> Session:
    return Session(
        tenant=caller.tenant,
        scopes=sorted(caller.scopes),
        operator=caller.operator,
        dev=state.settings.dev,
        version=__version__,
        currency=any(state.settings.prices.values()),
    )
