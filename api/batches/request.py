"""One line of a batch: the same way as a request over HTTP, but for the connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from api.errors import ApiError, invalid, redis_away
from api.keyring import Caller
from api.openai import chat, completions, embeddings
from api.openai.answers import Shape, whole
from api.openai.embeddings import EmbeddingRequest
from api.openai.schemas import ChatRequest, CompletionRequest
from api.requests import embed
from api.requests.admission import Admitted, admit
from api.requests.models import BrokenModel
from api.requests.request import GenerationRequest
from api.requests.terms import Terms
from api.state import State
from loraplex.broker.connection import Unavailable

_GRACE_S = 120.0  # a line that runs when its process dies is taken up by the next one
_PAUSE_S = 2.0
_FOR_GOOD = ("insufficient_quota", "model_broken", "replica_died")


Unwanted = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a line asks for, and how its answer's body is made."""

    request: GenerationRequest
    body: Callable[[State, Admitted, Unwanted], Awaitable[dict[str, Any]]]


def _chat(body: ChatRequest) -> Asked:
    return Asked(chat.generation(body), partial(_shaped, chat.CHAT))


def _completion(body: CompletionRequest) -> Asked:
    return Asked(completions.generation(body), partial(_shaped, completions.COMPLETION))


def _embedding(body: EmbeddingRequest) -> Asked:
    async def shown(state: State, admitted: Admitted, unwanted: Unwanted) -> dict[str, Any]:
        return await embeddings.whole(state, admitted, body, unwanted)

    return Asked(embed.generation(body.model, body.prompts(), body.pooling, body.user or ""), shown)


async def _shaped(
    shape: Shape, state: State, admitted: Admitted, unwanted: Unwanted
) -> dict[str, Any]:
    return await whole(state, admitted, shape, unwanted)


ENDPOINTS: Mapping[str, tuple[type[BaseModel], Callable[[Any], Asked]]] = {
    "/v1/chat/completions": (ChatRequest, _chat),
    "/v1/completions": (CompletionRequest, _completion),
    "/v1/embeddings": (EmbeddingRequest, _embedding),
}


def read(endpoint: str, body: dict[str, Any]) -> Asked:
    """Raises ApiError."""
    form, asked = ENDPOINTS[endpoint]
    try:
        return asked(form.model_validate(body))
    except ValidationError as wrong:
        raise invalid(wrong.errors()) from wrong


async def answer(
    state: State,
    caller: Caller,
    asked: Asked,
    name: str,
    until: float,
    unwanted: Unwanted,
) -> dict[str, Any]:
    """The answer's body. What may go well later is tried again until `until` (Unix seconds). Each
    try has a name, made of `name`, so that it runs once, whoever goes on with it. Left early it
    runs on, unless it is `unwanted`. Raises ApiError."""
    tries = 0
    while True:
        left_s = until - time.time()
        timeout_s = min(max(left_s, 1.0), state.settings.request_timeout_s)
        terms = Terms(timeout_s, _GRACE_S, _try(name, tries))
        try:
            admitted = await admit(state, caller, terms, asked.request, background=True)
            return await asked.body(state, admitted, unwanted)
        except ApiError as error:
            pause_s = pause_of(error)
            if pause_s is None or time.time() + pause_s > until:
                raise
            tries += 1
        except Unavailable as away:
            pause_s = _PAUSE_S
            if time.time() + pause_s > until:
                raise redis_away() from away
        except BrokenModel as broken:
            raise ApiError(503, "model_broken", str(broken), repeatable=False) from broken
        await asyncio.sleep(pause_s)


def first_try(name: str) -> str:
    """Its Idempotency-Key."""
    return _try(name, 0)


def _try(name: str, tries: int) -> str:
    return f"{name}/{tries}"


def pause_of(error: ApiError) -> float | None:
    """Until the same may go well. None: it won't."""
    if error.code in _FOR_GOOD:
        return None
    if error.status == 429:  # a request that is over its limit by itself has no time to wait
        return error.retry_after_s
    # It waited longer than a request does, its answer is kept no longer, or nothing serves it now.
    return error.retry_after_s or _PAUSE_S if error.status in (410, 503, 504) else None
