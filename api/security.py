"""API key → who calls, and whether the key's scopes allow it.

Default-deny: the whole application depends on `authenticated`, and each route on a scope besides
(`tests/unit/test_scopes.py` walks all of them); only the paths of `OPEN` and
the documentation of the API need no key. The key is
looked at by `app.Gate`, before a byte of the body is read; routes take its finding.
"""

from typing import Annotated

from fastapi import Depends, Request

from api.errors import ApiError
from api.keyring import Caller
from loraplex.scopes import Scope

# Transfers by the secret in their URLs; the console's page has no data of its own.
OPEN = ("/", "/docs", "/assets/", "/console/session", "/favicon.svg", "/health", "/transfers/")


def caller_of(request: Request) -> Caller:
    caller: Caller | ApiError = request.state.caller
    if isinstance(caller, ApiError):
        raise caller
    return caller


def is_open(path: str) -> bool:
    below = (each for each in OPEN if each[-1] == "/" and each != "/")
    return path in OPEN or any(path.startswith(each) for each in below)


async def authenticated(request: Request) -> None:
    if not is_open(request.scope["path"]):
        caller_of(request)


class Needs:
    """A dependency: the caller's tenant, if its key has one of the scopes. Raises ApiError 403."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    def met_by(self, caller: Caller) -> bool:
        return bool({Scope.ADMIN, *self.scopes} & caller.scopes)

    async def __call__(self, request: Request) -> str:
        caller = caller_of(request)
        if not self.met_by(caller):
            wanted = " or ".join(map(repr, map(str, self.scopes)))
            has = ", ".join(sorted(caller.scopes))
            message = f"This API key lacks the scope for it, {wanted}; it has: {has}."
            raise ApiError(403, "missing_scope", message)
        return caller.tenant


ForInference = Annotated[str, Depends(Needs(Scope.INFERENCE))]
ForDeployments = Annotated[str, Depends(Needs(Scope.DEPLOYMENTS))]
ForAdapters = Annotated[str, Depends(Needs(Scope.ADAPTERS))]
ForLooking = Annotated[str, Depends(Needs(Scope.INFERENCE, Scope.DEPLOYMENTS, Scope.ADAPTERS))]


async def admin_of(request: Request, tenant: Annotated[str, Depends(Needs(Scope.ADMIN))]) -> Caller:
    return caller_of(request)


Admin = Annotated[Caller, Depends(admin_of)]


async def operator_of(admin: Admin) -> Caller:
    if not admin.operator:
        message = "Only the tenant that runs the platform may do that."
        raise ApiError(403, "operators_only", message)
    return admin


Operator = Annotated[Caller, Depends(operator_of)]
