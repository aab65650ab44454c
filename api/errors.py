"""Errors that users can meet: raised where the fact is known, rendered here for each surface.

`/api/v1` answers with problem+json (RFC 9457), LoRAX' native routes in LoRAX' shape,
Predibase's control plane in Predibase's, everything else in OpenAI's.
"""

import logging
import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.requests.models import BrokenModel
from loraplex.broker.connection import Unavailable

log = logging.getLogger(__name__)

DATABASE_AWAY = (InterfaceError, OperationalError, PoolTimeout)
# What SQLite says of it; other OperationalErrors of SQLite are defects.
_SQLITE_AWAY = ("locked", "unable to open", "disk I/O", "disk is full")

_LORAX = re.compile(r"(/deployments/[^/]+|/[^/]+/deployments/v2/llms/[^/]+)(/(?!v1/).*)?")
_PREDIBASE = re.compile(r"/v2/|(/v1)?/(users|llms|datasets)/|/transfers/")


class ApiError(Exception):
    """A refusal with a status, a code for programs and a sentence that says what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        repeatable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`repeatable`: OpenAI's SDKs send again what failed on the server, unless told not to."""
        super().__init__(message)
        self.repeatable = repeatable
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        fields = {"message": self.message, "type": _type(self.status), "param": self.param}
        return {"error": fields | {"code": self.code}}


def _type(status: int) -> str:
    kinds = {403: "permission_error", 409: "conflict", 429: "rate_limit_exceeded"}
    if status == 503:
        return "service_unavailable"
    return kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, code, message, param=param)


def redis_away() -> ApiError:
    return ApiError(
        503,
        "queue_unavailable",
        "The queue is not reachable right now. Try again shortly.",
        retry_after_s=2,
    )


def database_away() -> ApiError:
    return ApiError(
        503,
        "database_unavailable",
        "The database is not reachable right now. Try again shortly.",
        retry_after_s=2,
    )


def generation_failed(code: str, message: str) -> ApiError:
    """The error of a request that was accepted and could not be run to its end."""
    refusals = ("context_length_exceeded", "adapter_refused", "grammar_refused", "invalid_request")
    known = dict.fromkeys(refusals, 400)
    known |= {"expired": 504, "cancelled": 499, "answer_expired": 410}
    away = code.startswith("deployment_") or code == "request_lost"
    status = 503 if away else known.get(code, 500)
    # A deadline holds for all tries; a request of which replicas die is not to be sent again.
    return ApiError(status, code, message, repeatable=code not in ("expired", "replica_died"))


def lorax_body(error: ApiError) -> tuple[int, dict[str, Any]]:
    """Status and body by which `lorax-client` chooses its exception: by `error_type`, and where
    there is none by the status."""
    body: dict[str, Any] = {"error": error.message}
    if error.status in (400, 409, 413, 422):
        return 422, body | {"error_type": "validation"}
    if error.status in (429, 503):
        return error.status, body | {"error_type": "overloaded"}
    if error.status >= 500 and error.status != 504:
        return error.status, body | {"error_type": "generation"}
    return error.status, body


def render(request: Request, error: ApiError) -> JSONResponse:
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if not error.repeatable:
        headers["x-should-retry"] = "false"
    if _LORAX.fullmatch(request.url.path):
        status, body = lorax_body(error)
        return JSONResponse(body, status, headers)
    if _PREDIBASE.match(request.url.path):  # its SDK shows a string best, but for downloads
        download = request.url.path.endswith("/download")
        shown = {"message": error.message} if download else error.message
        return JSONResponse({"error": shown}, error.status, headers)
    if not request.url.path.startswith("/api/v1"):
        return JSONResponse(error.body, error.status, headers)
    problem = {"type": "about:blank", "title": error.code, "status": error.status}
    problem |= {"detail": error.message, "param": error.param}
    return JSONResponse(problem, error.status, headers, media_type="application/problem+json")


def invalid(errors: Sequence[Any]) -> ApiError:
    """What pydantic found wrong, as the error that names the first of it."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return bad_request("The body is not valid JSON.", None, "invalid_json")
    # pydantic names the tried members of a union, too: no part of the parameter's path
    place = [str(p) for p in first["loc"] if p != "str" and "[" not in str(p)]
    # … and a union's tag, which mostly is the name of what is below it
    param = ".".join(name for name, _ in groupby(place)) or None
    if first["type"] == "extra_forbidden":
        return bad_request(f"Unsupported parameter: {param}.", param, "unsupported_parameter")
    message = f"{param or 'body'}: {first['msg'].removeprefix('Value error, ')}"
    return bad_request(message, param)


def install(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def _refused(request: Request, error: ApiError) -> JSONResponse:
        return render(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sent = request.headers.get("content-type", "")
        if error.errors()[0]["type"] == "model_attributes_type" and "json" not in sent:
            message = f"The body is {sent or 'of no type'}: send JSON, as application/json."
            return render(request, bad_request(message, None, "invalid_json"))
        # The first part of a place is where it was: body, query, path.
        return render(request, invalid([e | {"loc": e["loc"][1:]} for e in error.errors()]))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
        message = f"{request.method} {request.url.path}: {error.detail}"
        if error.detail == "There was an error parsing the body":
            message = (
                "The body can't be read: JSON nested too deeply, a number too large, no UTF-8."
            )
        code = codes.get(error.status_code, "invalid_request")
        return render(request, ApiError(error.status_code, code, message))

    @app.exception_handler(BrokenModel)
    async def _broken(request: Request, error: BrokenModel) -> JSONResponse:
        return render(request, ApiError(503, "model_broken", str(error), repeatable=False))

    @app.exception_handler(Exception)
    async def _defect(request: Request, error: Exception) -> JSONResponse:
        # Starlette logs the traceback.
        message = "A defect of the server; its log has the details."
        return render(request, ApiError(500, "server_error", message))

    for lost in DATABASE_AWAY:

        @app.exception_handler(lost)
        async def _lost(request: Request, error: Exception) -> JSONResponse:
            if not _is_away(error):
                raise error  # a defect
            log.warning("the database is away: %s", error)
            return render(request, database_away())

    for kind in Unavailable:

        @app.exception_handler(kind)
        async def _away(request: Request, error: Exception) -> JSONResponse:
            log.warning("Redis is away: %s", error)
            return render(request, redis_away())


def _is_away(error: Exception) -> bool:
    origin = getattr(error, "orig", None)
    if not isinstance(origin, sqlite3.Error):
        return True
    return any(text in str(origin) for text in _SQLITE_AWAY)
