"""POST /v1/chat/completions."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.openai.answers import Shape, respond
from api.openai.logprobs import chat_logprobs
from api.openai.schemas import ChatRequest
from api.openai.tool_answers import ToolCallText
from api.requests.request import GenerationRequest
from api.requests.resolve import model_within
from api.security import ForInference
from api.state import StateDep

router = APIRouter(tags=["openai"])


@router.post("/chat/completions")
async def create(body: ChatRequest, http: Request, _: ForInference, state: StateDep) -> Response:
    """A chat answer, streamed with `stream: true`."""
    request = generation(body, http.path_params.get("deployment"))
    return await respond(state, http, request, CHAT)


def generation(body: ChatRequest, deployment: str | None = None) -> GenerationRequest:
    """`deployment`: under whose path it came. Raises ApiError."""
    return GenerationRequest(
        surface="chat",
        streamed=bool(body.stream),
        include_usage=body.include_usage,
        logprobs_shown=bool(body.logprobs),
        model=model_within(deployment, body.model),
        prompts=[[message.plain() for message in body.messages]],
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=body.alternatives,
        grammar=body.structure(body.response_format.grammar() if body.response_format else None),
        tools=body.tool_use,
        template_arguments=body.arguments_for_template,
        **body.sampling(),
    )


def _whole(
    index: int,
    text: str,
    finish: str | None,
    logprobs: dict[str, Any] | None,
    calls: Sequence[ToolCallText] = (),
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": [call.whole() for call in calls]}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _chunk(
    index: int,
    text: str,
    finish: str | None,
    logprobs: dict[str, Any] | None,
    calls: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    delta: dict[str, Any] = {} if finish or (calls and not text) else {"content": text}
    if calls:
        delta["tool_calls"] = list(calls)
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _opening(index: int) -> dict[str, Any]:
    delta = {"role": "assistant", "content": ""}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


CHAT = Shape(
    whole="chat.completion",
    chunk="chat.completion.chunk",
    id_prefix="chatcmpl-",
    whole_choice=_whole,
    chunk_choice=_chunk,
    logprobs=chat_logprobs,
    opening=_opening,
)
