"""/api/v1/dead-letters: requests that were given up because replicas died of them."""

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from msgspec import structs
from pydantic import BaseModel
from sqlmodel import Session

from api.errors import ApiError
from api.requests.admission import REFUSALS, refusal
from api.requests.comeback import bare, deployment_by
from api.requests.lanes import lanes_of, served_by
from api.requests.resolve import need_usable, usable_by
from api.requests.terms import request_id
from api.security import ForDeployments
from api.state import State, StateDep
from loraplex.broker.cancellation import request_of
from loraplex.broker.interface import AlreadyKnown, DeadLetter
from loraplex.entities import Deployment
from loraplex.keys import Lane
from loraplex.messages import Shown
from loraplex.status import Status

router = APIRouter(prefix="/dead-letters", tags=["dead-letters"])


class DeadLetterOut(BaseModel):
    request: str
    deployment: str
    at: datetime
    error: str
    adapter: str | None  # digest
    prompt_tokens: int
    max_tokens: int


class DeadLetterDetail(DeadLetterOut):
    prompt: str


class Retried(BaseModel):
    request: str  # its answer: GET /api/v1/requests/{request}/answer


@router.get("")
async def list_dead_letters(
    tenant: ForDeployments, state: StateDep, deployment: str | None = None
) -> dict[str, list[DeadLetterOut]]:
    """The tenant's own requests that were given up, of all deployments or of one, oldest first; the
    latest 1,000 of each deployment are kept."""
    found = []
    for each in await run_in_threadpool(_deployments, state, tenant, deployment):
        for lane in await run_in_threadpool(lanes_of, state, each):
            letters = await state.broker.dead_letters(lane)
            own = (letter for letter in letters if letter.job.tenant == tenant)
            found += [DeadLetterOut(**_facts(each, letter)) for letter in own]
    return {"data": sorted(found, key=lambda letter: letter.at)}


@router.get("/{request}")
async def show(request: str, tenant: ForDeployments, state: StateDep) -> DeadLetterDetail:
    """One of them, with its prompt."""
    deployment, lane, letter = await _find(state, tenant, request)
    served = await run_in_threadpool(served_by, state, lane)
    prompt = served.tokenizer.decode(letter.job.prompt, skip_special_tokens=False)
    return DeadLetterDetail(**_facts(deployment, letter), prompt=prompt)


@router.post("/{request}/retry", status_code=202)
async def retry(request: str, tenant: ForDeployments, state: StateDep) -> Retried:
    """Run it once more, under another id; the dead letter is dropped."""
    deployment, lane, letter = await _find(state, tenant, request)
    # The same letter gives the same id: two retries at once run it once.
    again = request_id(deployment.id, letter.entry.replace("-", "0"))
    deadline = time.time() + state.settings.request_timeout_s
    job = structs.replace(
        letter.job, request=again, reply_to=state.broker.api_id, deadline=deadline
    )
    shown = await _shown(state, lane, letter, again, deadline, deployment.name)
    waiter = f"retry/{secrets.token_hex(4)}"  # nobody's going stops it
    keep_s = state.settings.request_timeout_s + state.settings.retention_s
    bound = state.settings.max_backlog
    try:
        await state.broker.enqueue(lane, [job], shown, waiter, max_backlog=bound, keep_s=keep_s)
    except REFUSALS as refused:
        raise await refusal(state, deployment, refused) from refused
    except AlreadyKnown:
        pass  # by a retry that was cut off before the next line
    await state.broker.drop_dead_letter(lane, letter.entry)
    return Retried(request=again)


@router.delete("/{request}")
async def drop(request: str, tenant: ForDeployments, state: StateDep) -> dict[str, Any]:
    """Forget it."""
    _, lane, letter = await _find(state, tenant, request)
    await state.broker.drop_dead_letter(lane, letter.entry)
    return {"request": letter.job.request, "dropped": True}


async def _shown(
    state: State, lane: Lane, letter: DeadLetter, request: str, deadline: float, name: str
) -> Shown:
    """As the request was to be shown, if that is known still."""
    recorded = await state.broker.recorded(lane, request_of(letter.job.request))
    was = recorded.shown if recorded else None
    return Shown(
        request=request,
        tenant=letter.job.tenant,
        surface=was.surface if was else "completion",
        model=was.model if was else name,
        created=int(time.time()),
        deadline=deadline,
        answers=1,
        n=1,
        best=1,
        prompt_tokens=len(letter.job.prompt),
        stop=was.stop if was else [],
        logprobs=letter.job.sampling.logprobs is not None,
    )


async def _find(state: State, tenant: str, request: str) -> tuple[Deployment, Lane, DeadLetter]:
    request = bare(request)
    deployment = await run_in_threadpool(deployment_by, state, request)
    if deployment is not None and deployment.status != Status.DELETED:
        for lane in await run_in_threadpool(lanes_of, state, deployment):
            for letter in await state.broker.dead_letters(lane):
                if letter.job.request == request and letter.job.tenant == tenant:
                    return deployment, lane, letter
    raise ApiError(404, "dead_letter_not_found", f"There is no dead letter {request!r}.")


def _deployments(state: State, tenant: str, name: str | None) -> list[Deployment]:
    with Session(state.database, expire_on_commit=False) as session:
        if name is not None:
            return [need_usable(session, tenant, name)]
        return usable_by(session, tenant)


def _facts(deployment: Deployment, letter: DeadLetter) -> dict[str, Any]:
    at = int(letter.entry.partition("-")[0]) / 1000
    return {
        "request": letter.job.request,
        "deployment": deployment.name,
        "at": datetime.fromtimestamp(at, UTC),
        "error": letter.error,
        "adapter": letter.job.adapter,
        "prompt_tokens": len(letter.job.prompt),
        "max_tokens": letter.job.sampling.max_tokens,
    }
