"""One request, whatever its surface, up to the queue: what is wrong is answered here."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.errors import ApiError, redis_away
from api.keyring import Caller
from api.requests import quota
from api.requests.exchange import Exchange, exchange_of
from api.requests.inflight import Ongoing
from api.requests.jobs import JobMaker, fingerprint
from api.requests.lanes import lanes_of, served_by
from api.requests.models import ServedModel
from api.requests.queues import Place
from api.requests.request import GenerationRequest
from api.requests.resolve import find_usable
from api.requests.terms import Terms, request_id, unique_by
from api.state import State
from api.traces import step, tell_of
from loraplex.broker.interface import (
    AlreadyKnown,
    BacklogFull,
    GateShut,
    MemoryFull,
    StillStopping,
)
from loraplex.entities import Deployment
from loraplex.keys import Lane
from loraplex.messages import Job, Shown
from loraplex.status import Status

_SERVING = (Status.READY, Status.UPDATING)
MOST_MOVES = 3  # from lane to lane, before the client is asked to try again


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in the queue, or one that its client has come back for."""

    served: ServedModel
    ongoing: Ongoing
    received: list[int] | None = None  # positions of its answers that the client has
    place: Place | None = None  # in the queue, when it came; None: there was none
    standing: Mapping[str, str] = field(default_factory=dict)  # headers: what is left of its limits
    exchange: Exchange | None = None  # it is kept, or asked of another version too

    @property
    def shown(self) -> Shown:
        return self.ongoing.shown

    @property
    def headers(self) -> dict[str, str]:
        place = self.place.headers if self.place else {}
        adapter = {"x-adapter-id": self.shown.adapter} if self.shown.adapter else {}
        return {"x-request-id": self.shown.request, **adapter, **self.standing, **place}


async def admit(
    state: State,
    caller: Caller,
    terms: Terms,
    request: GenerationRequest,
    *,
    background: bool = False,
) -> Admitted:
    """Resolve, tokenize, check, reserve, enqueue: all of its answers or none. Raises ApiError.

    `background`: it gives way to others.
    """
    with step("enqueue"):
        admitted = await _admit_where_it_is(state, caller, terms, request, background)
    tell_of(admitted.shown, request)
    return admitted


async def _admit_where_it_is(
    state: State, caller: Caller, terms: Terms, request: GenerationRequest, background: bool
) -> Admitted:
    quota.check_budget(caller)
    if terms.idempotency_key is not None:
        known = await _sent_to_former(state, caller.tenant, terms.idempotency_key, request)
        if known is not None:
            return known
    for _ in range(MOST_MOVES):
        try:
            return await _admit(state, caller, terms, request, background)
        except LaneMoved:  # the deployment went over to another base model at this moment
            continue
    reason = "The deployment is being changed. Send the request again."
    raise ApiError(503, "deployment_changing", reason, retry_after_s=1)


class LaneMoved(Exception):
    """The lane was shut because its deployment is not what it was: look again."""


async def _admit(
    state: State, caller: Caller, terms: Terms, request: GenerationRequest, background: bool
) -> Admitted:
    resolved = await state.resolver.resolve(caller.tenant, request.model, request.merge)
    deployment, served = resolved.deployment, resolved.served
    scopes = quota.scopes_of(caller, deployment)
    maker = JobMaker(
        state.broker.api_id, caller, terms, limited=bool(scopes), background=background
    )
    jobs, shown = await maker.make(request, resolved)
    known = partial(
        _come_for, state, deployment, deployment.lane, served, shown.request, shown.body
    )
    standing: dict[str, str] = {}
    if scopes and terms.idempotency_key:  # what was sent before is not counted again
        recorded = await state.broker.recorded(deployment.lane, shown.request)
        if recorded is not None and not recorded.stopped:
            return await known()
    try:
        if scopes:
            standing = await quota.reserve(state, deployment, scopes, jobs)
        ongoing = await _enqueue(state, deployment, jobs, shown)
    except BaseException as refused:
        if scopes and not _over_limit(refused):
            await quota.give_back(state, jobs)
        if isinstance(refused, AlreadyKnown):
            return await known()
        raise
    place = await _place(state, deployment, ongoing)
    exchange = None
    if not background:
        exchange = exchange_of(request, caller, resolved, shown.adapter, state.keep)
    return Admitted(served, ongoing, place=place, standing=standing, exchange=exchange)


def _over_limit(refused: BaseException) -> bool:
    """Nothing was reserved."""
    return isinstance(refused, ApiError) and refused.code == quota.OVER_LIMIT


async def _place(state: State, deployment: Deployment, ongoing: Ongoing) -> Place | None:
    """Asked for where it may have to wait."""
    entry = ongoing.answers[0].entry
    if entry is None or (deployment.status in _SERVING and not ongoing.ahead):
        return None
    return await state.queues.place(ongoing.lane, entry)


async def _sent_to_former(
    state: State, tenant: str, key: str, request: GenerationRequest
) -> Admitted | None:
    """The same Idempotency-Key was sent when the deployment had another base model, which the
    request was resolved and tokenized for. Raises ApiError when it was another request."""

    def lanes() -> tuple[Deployment | None, list[Lane]]:
        with Session(state.database, expire_on_commit=False) as session:
            name = request.model.partition(":")[0]
            deployment = find_usable(session, tenant, name)
        return deployment, lanes_of(state, deployment)[1:] if deployment else []

    deployment, former = await run_in_threadpool(lanes)
    for lane in former:
        assert deployment is not None
        name = request_id(deployment.id, unique_by(tenant, key))
        if await state.broker.recorded(lane, name) is not None:
            served = await run_in_threadpool(served_by, state, lane)
            return await _come_for(state, deployment, lane, served, name, fingerprint(request))
    return None


async def _come_for(
    state: State, deployment: Deployment, lane: Lane, served: ServedModel, name: str, body: str
) -> Admitted:
    """The same Idempotency-Key again. Raises ApiError when the request is another."""
    ongoing = await state.inflight.attach(lane, name)
    if ongoing is None:  # it was given up at this instant
        raise ApiError(503, "request_given_up", "Send the request again.", retry_after_s=1)
    if ongoing.shown.body != body:
        state.inflight.done(ongoing)
        reason = "This Idempotency-Key was used for another request."
        raise ApiError(409, "idempotency_key_reused", reason, param="Idempotency-Key")
    return Admitted(served, ongoing, place=await _place(state, deployment, ongoing))


async def _enqueue(state: State, deployment: Deployment, jobs: list[Job], shown: Shown) -> Ongoing:
    lane, settings = deployment.lane, state.settings
    try:
        return await state.inflight.enqueue(
            *(lane, jobs, shown),
            max_backlog=settings.max_backlog,
            keep_s=shown.deadline - time.time() + settings.retention_s,
            reserved=quota.reserved(jobs),
        )
    except REFUSALS as refused:
        if isinstance(refused, GateShut):
            state.resolver.forget()
            if await run_in_threadpool(_changed, state, deployment):
                raise LaneMoved from refused
        raise await refusal(state, deployment, refused) from refused


def _changed(state: State, seen: Deployment) -> bool:
    """Since it was looked at: it is on another lane, say, or was stopped."""
    with Session(state.database) as session:
        now = session.get(Deployment, seen.id)
        return now is not None and (now.lane, now.status) != (seen.lane, seen.status)


REFUSALS = (BacklogFull, GateShut, MemoryFull, StillStopping, TimeoutError)


async def refusal(state: State, deployment: Deployment, refused: Exception) -> ApiError:
    """What a client reads whose request the queue doesn't take."""
    if isinstance(refused, BacklogFull):
        message = (
            f"{refused.waiting} requests are waiting for deployment {deployment.name!r}: "
            "its backlog is full. Try again later, or raise max_replicas."
        )
        throughput = await state.broker.tokens_per_s(deployment.lane)
        wait_s = retry_after_s(refused.waiting, throughput)
        return ApiError(429, "queue_full", message, retry_after_s=wait_s)
    if isinstance(refused, GateShut):
        return ApiError(503, "deployment_unavailable", str(refused), retry_after_s=2)
    if isinstance(refused, MemoryFull):
        message = "The queue's memory is full (Redis' maxmemory). Try again later, or raise it."
        return ApiError(503, "queue_memory_full", message, retry_after_s=5)
    if isinstance(refused, StillStopping):
        message = "This request was stopped a moment ago. Send it again."
        return ApiError(503, "request_given_up", message, retry_after_s=1)
    return redis_away()  # TimeoutError: no subscription


def retry_after_s(waiting: int, tokens_per_s: float, tokens_a_request: float = 100.0) -> float:
    """How long a full backlog takes to drain by half; 10 s while no replica has been measured."""
    if tokens_per_s <= 0:
        return 10.0
    return min(max(1.0, 0.5 * waiting * tokens_a_request / tokens_per_s), 120.0)
