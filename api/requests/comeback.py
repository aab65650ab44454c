"""A client that comes back for a request which it, or somebody with its key, has sent before."""

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.errors import ApiError, bad_request
from api.requests.admission import Admitted, admit
from api.requests.jobs import fingerprint
from api.requests.lanes import lanes_of, served_by
from api.requests.request import GenerationRequest
from api.requests.terms import LastEvent, deployment_of, terms
from api.security import caller_of
from api.state import State
from loraplex.broker.interface import Recorded
from loraplex.entities import Deployment
from loraplex.keys import Lane


async def admit_or_resume(state: State, http: Request, request: GenerationRequest) -> Admitted:
    """Admit a request, or go on with the one that its `Last-Event-ID` names. Raises ApiError."""
    caller = caller_of(http)
    asked = terms(http, state.settings, returns=request.surface != "lorax")
    if asked.last_event is None:
        return await admit(state, caller, asked, request)
    admitted = await come_back(state, caller.tenant, asked.last_event)
    if admitted.shown.body != fingerprint(request):
        state.inflight.done(admitted.ongoing)
        reason = "Last-Event-ID is of another request than this body. Send the same again."
        raise ApiError(409, "last_event_of_another", reason, param="Last-Event-ID")
    return admitted


async def come_back(state: State, tenant: str, last: LastEvent) -> Admitted:
    """Go on with a request after the last event that was received. Raises ApiError."""
    lane, _ = await find(state, tenant, last.request)
    served = await run_in_threadpool(served_by, state, lane)
    ongoing = await state.inflight.attach(lane, last.request)
    if ongoing is None:
        raise unknown(last.request)
    if last.positions and len(last.positions) != ongoing.shown.answers:
        state.inflight.done(ongoing)
        raise bad_request("Last-Event-ID has another number of answers.", "Last-Event-ID")
    return Admitted(served, ongoing, last.positions or None)


async def find(state: State, tenant: str, request: str) -> tuple[Lane, Recorded]:
    """A tenant's own request. Raises ApiError 404."""
    deployment = await run_in_threadpool(deployment_by, state, request)
    lanes = await run_in_threadpool(lanes_of, state, deployment) if deployment else []
    for lane in lanes:
        recorded = await state.broker.recorded(lane, request)
        if recorded is not None and recorded.shown.tenant == tenant:
            return lane, recorded
    raise unknown(request)


def unknown(request: str) -> ApiError:
    reason = "It may have ended a while ago, or was stopped because nobody waited for it."
    return ApiError(404, "request_not_found", f"No request {request!r} is known. {reason}")


def deployment_by(state: State, request: str) -> Deployment | None:
    """The deployment that a request's id begins with, whoever's it is."""
    with Session(state.database, expire_on_commit=False) as session:
        return session.get(Deployment, deployment_of(request))


def bare(request: str) -> str:
    """A request's id without what the answers' `id` has before it."""
    return request.rpartition("-")[2]
