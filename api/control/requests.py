"""Requests that were sent before: where they are, their answers, their end."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from api.errors import bad_request
from api.lorax import answers as lorax
from api.openai import answers as openai
from api.openai.chat import CHAT
from api.openai.completions import COMPLETION
from api.requests.comeback import bare, come_back, find
from api.requests.terms import LastEvent, terms
from api.security import ForInference
from api.state import StateDep
from loraplex.messages import Surface

router = APIRouter(prefix="/requests", tags=["requests"])

_ANSWERS: dict[Surface, Callable[..., Awaitable[Response]]] = {
    "chat": partial(openai.answer, shape=CHAT),
    "completion": partial(openai.answer, shape=COMPLETION),
    "lorax": lorax.answer,
}


@router.get("/{request_id}")
async def show(request_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """A request's state: queued, running, ended, or stopped because nobody waited for it."""
    lane, recorded = await find(state, tenant, bare(request_id))
    shown = recorded.shown
    stage = "stopped"
    place = None
    if not recorded.stopped:
        stage = await state.broker.state_of(lane, recorded.entries)
    if stage == "queued":
        place = await state.queues.place(lane, recorded.entries[0])
    return {
        "id": shown.request,
        "model": shown.model,
        "created": shown.created,
        "deadline": shown.deadline,
        "answers": shown.answers,
        "state": stage,
        "queue": {"ahead": place.ahead, "eta_s": place.eta_s} if place else None,
    }


@router.get("/{request_id}/answer")
async def read(
    request_id: str,
    http: Request,
    tenant: ForInference,
    state: StateDep,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """A request's answer, from its beginning or after `Last-Event-ID`: as events if `Accept` says
    text/event-stream, else as a whole when it has ended."""
    last = terms(http, state.settings).last_event or LastEvent(bare(request_id), [])
    admitted = await come_back(state, tenant, last)
    streamed = "text/event-stream" in accept
    answer = _ANSWERS.get(admitted.shown.surface)
    if answer is None:
        state.inflight.done(admitted.ongoing)
        message = "Embeddings are answered at once; a response is at /v1/responses/resp_<id>."
        raise bad_request(message)
    return await answer(state, http, admitted, streamed=streamed)


@router.delete("/{request_id}")
async def cancel(request_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """Stop a request wherever it is; who waits for it is told."""
    lane, recorded = await find(state, tenant, bare(request_id))
    request = recorded.shown.request
    stopped = await state.broker.cancel(lane, request, recorded.entries)
    return {"id": request, "cancelled": stopped == "stopped"}
