"""One request, whatever its surface, up to the queue: what is wrong is answered here."""

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.errors import ApiError, redis_away
from api.keyring import Caller
from api.requests import quota
from api.requests.expectation import expected_at
from api.requests.inflight import Ongoing
from api.requests.lanes import lanes_of, served_by
from api.requests.models import ServedModel
from api.requests.prepare import prepare
from api.requests.request import GenerationRequest
from api.requests.resolve import Target, find_deployment, resolve
from api.requests.terms import Terms, request_id, unique_by
from api.state import State
from loraplex.broker.cancellation import answer_id
from loraplex.broker.interface import (
    AlreadyKnown,
    BacklogFull,
    GateShut,
    MemoryFull,
    StillStopping,
)
from loraplex.entities import Deployment
from loraplex.keys import Lane
from loraplex.messages import Account, Job, Shown
from loraplex.not_serving import not_serving
from loraplex.status import ADMITTING, Status

MOST_MOVES = 3  # from lane to lane, before the client is asked to try again


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in the queue, or one that its client has come back for."""

    served: ServedModel
    ongoing: Ongoing
    received: list[int] | None = None  # positions of its answers that the client has
    expected_at: float | None = None  # when a replica comes, if none serves (Unix seconds)
    standing: Mapping[str, str] = field(default_factory=dict)  # headers: what is left of its limits

    @property
    def shown(self) -> Shown:
        return self.ongoing.shown

    @property
    def headers(self) -> dict[str, str]:
        return {"x-request-id": self.shown.request, **self.standing}


async def admit(state: State, caller: Caller, terms: Terms, request: GenerationRequest) -> Admitted:
    """Resolve, tokenize, check, reserve, enqueue: all of its answers or none. Raises ApiError."""
    quota.check_budget(caller)
    if terms.idempotency_key is not None:
        known = await _sent_to_former(state, caller.tenant, terms.idempotency_key, request)
        if known is not None:
            return known
    for _ in range(MOST_MOVES):
        try:
            return await _admit(state, caller, terms, request)
        except LaneMoved:  # the deployment went over to another base model at this moment
            continue
    reason = "The deployment changes from one base model to another. Send the request again."
    raise ApiError(503, "deployment_changing", reason, retry_after_s=1)


class LaneMoved(Exception):
    """The lane was shut because its deployment has another one now."""


async def _admit(
    state: State, caller: Caller, terms: Terms, request: GenerationRequest
) -> Admitted:
    target, served = await run_in_threadpool(_resolve, state, caller.tenant, request)
    scopes = quota.scopes_of(caller, target.deployment)
    # In a thread: long prompts would hold up everybody's tokens.
    work_out = partial(_work_out, state, caller, terms, request, target, served, bool(scopes))
    jobs, shown = await run_in_threadpool(work_out)
    deployment = target.deployment
    known = partial(_sent_before, state, deployment, served, shown)
    standing: dict[str, str] = {}
    if scopes:
        # What was sent before is not counted again.
        if terms.idempotency_key and await state.broker.recorded(deployment.lane, shown.request):
            return await known()
        standing = await quota.reserve(state, deployment, scopes, jobs)
    try:
        ongoing = await _enqueue(state, target, jobs, shown)
    except BaseException as refused:
        if scopes:
            await quota.give_back(state, jobs)
        if isinstance(refused, AlreadyKnown):
            return await known()
        raise
    expected = await expected_at(state, deployment)
    return Admitted(served, ongoing, expected_at=expected, standing=standing)


def _work_out(
    state: State,
    caller: Caller,
    terms: Terms,
    request: GenerationRequest,
    target: Target,
    served: ServedModel,
    limited: bool,
) -> tuple[list[Job], Shown]:
    """A request's jobs, one for each answer, and how they are shown. Raises ApiError."""
    tenant = caller.tenant
    prompts, sampling = prepare(served, request)
    unique = secrets.token_hex(8)
    if terms.idempotency_key is not None:
        unique = unique_by(tenant, terms.idempotency_key)
    name = request_id(target.deployment.id, unique)
    deadline = time.time() + terms.timeout_s
    adapter = target.adapter
    jobs = [
        Job(
            request=answer_id(name, index),
            reply_to=state.broker.api_id,
            tenant=tenant,
            adapter=adapter.digest if adapter else None,
            prompt=prompts[index // request.n],
            sampling=sampling(index),
            deadline=deadline,
            account=Account(
                key=caller.key,
                adapter=adapter.ref if adapter else "",
                prompt=index % request.n == 0,
                reservation=quota.new_reservation() if limited else "",
            ),
        )
        for index in range(request.n * len(prompts))
    ]
    return jobs, _shown(request, name, tenant, prompts, served, deadline, terms)


async def _sent_to_former(
    state: State, tenant: str, key: str, request: GenerationRequest
) -> Admitted | None:
    """The same Idempotency-Key was sent when the deployment had another base model, which the
    request was resolved and tokenized for. Raises ApiError when it was another request."""

    def lanes() -> tuple[Deployment | None, list[Lane]]:
        with Session(state.database, expire_on_commit=False) as session:
            name = request.model.partition(":")[0]
            deployment = find_deployment(session, tenant, name)
        return deployment, lanes_of(state, deployment)[1:] if deployment else []

    deployment, former = await run_in_threadpool(lanes)
    for lane in former:
        assert deployment is not None
        name = request_id(deployment.id, unique_by(tenant, key))
        if await state.broker.recorded(lane, name) is not None:
            served = await run_in_threadpool(served_by, state, lane)
            return await _come_for(state, deployment, lane, served, name, fingerprint(request))
    return None


async def _sent_before(
    state: State, deployment: Deployment, served: ServedModel, shown: Shown
) -> Admitted:
    lane, name, body = deployment.lane, shown.request, shown.body
    return await _come_for(state, deployment, lane, served, name, body)


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
    return Admitted(served, ongoing, expected_at=await expected_at(state, deployment))


def _shown(
    request: GenerationRequest,
    name: str,
    tenant: str,
    prompts: list[list[int]],
    served: ServedModel,
    deadline: float,
    terms: Terms,
) -> Shown:
    prefixes = []
    if request.echo:
        given = zip(request.prompts, prompts, strict=True)
        prefixes = [p if isinstance(p, str) else served.tokenizer.decode(ids) for p, ids in given]
    return Shown(
        request=name,
        tenant=tenant,
        surface=request.surface,
        model=request.model,
        created=int(time.time()),
        deadline=deadline,
        answers=request.n * len(prompts),
        n=request.n,
        best=request.best or request.n,
        prompt_tokens=sum(map(len, prompts)),
        stop=list(request.stop),
        include_usage=request.include_usage,
        streamed=request.streamed,
        logprobs=request.logprobs_shown,
        silent=request.max_tokens == 0,
        prefixes=prefixes,
        scored=prompts if request.prompt_logprobs is not None else [],
        body=fingerprint(request),
        grace_s=terms.grace_s,
    )


async def _enqueue(state: State, target: Target, jobs: list[Job], shown: Shown) -> Ongoing:
    lane, settings = target.deployment.lane, state.settings
    try:
        return await state.inflight.enqueue(
            *(lane, jobs, shown),
            max_backlog=settings.max_backlog,
            keep_s=shown.deadline - time.time() + settings.retention_s,
            reserved=quota.reserved(jobs),
        )
    except REFUSALS as refused:
        if isinstance(refused, GateShut) and await run_in_threadpool(_moved, state, target):
            raise LaneMoved from refused
        raise await refusal(state, target.deployment, refused) from refused


def _moved(state: State, target: Target) -> bool:
    with Session(state.database) as session:
        now = session.get(Deployment, target.deployment.id)
        return now is not None and now.lane != target.deployment.lane


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


def fingerprint(request: GenerationRequest) -> str:
    """The same for the same request, sent again. A seed that the client left out is no part."""
    return hashlib.sha256(repr(request).encode("utf-8", "surrogatepass")).hexdigest()


def _resolve(state: State, tenant: str, request: GenerationRequest) -> tuple[Target, ServedModel]:
    with Session(state.database, expire_on_commit=False) as session:
        target = resolve(session, tenant, request.model)
    deployment = target.deployment
    if deployment.status not in ADMITTING:
        raise ApiError(
            503 if deployment.status == Status.ERRORED else 409,
            f"deployment_{deployment.status}",
            not_serving(deployment.name, deployment.status, deployment.reason),
            param="model",
        )
    return target, served_for(state, deployment)


def served_for(state: State, deployment: Deployment) -> ServedModel:
    """Raises ApiError while its base model isn't here."""
    folder = state.models.find(deployment.base_model)
    if folder is None:
        raise ApiError(
            503,
            "deployment_pending",
            f"The base model of deployment {deployment.name!r} is still being fetched.",
            retry_after_s=5,
        )
    return state.served.load(folder)
