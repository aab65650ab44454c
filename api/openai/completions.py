"""POST /v1/completions."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.openai.answers import Shape, respond
from api.openai.logprobs import completion_logprobs
from api.openai.schemas import CompletionRequest
from api.requests.request import GenerationRequest
from api.requests.resolve import model_within
from api.security import ForInference
from api.state import StateDep

router = APIRouter(tags=["openai"])


@router.post("/completions")
async def create(
    body: CompletionRequest, http: Request, _: ForInference, state: StateDep
) -> Response:
    """Text that goes on from a prompt, streamed with `stream: true`."""
    request = generation(body, http.path_params.get("deployment"))
    return await respond(state, http, request, COMPLETION)


def generation(body: CompletionRequest, deployment: str | None = None) -> GenerationRequest:
    """`deployment`: under whose path it came. Raises ApiError."""
    best_of = body.candidates
    return GenerationRequest(
        surface="completion",
        streamed=bool(body.stream),
        include_usage=body.include_usage,
        model=model_within(deployment, body.model),
        prompts=body.prompts(),
        max_tokens=body.max_tokens,
        **body.sampling() | {"n": best_of},
        best=body.answers,
        echo=bool(body.echo),
        suffix=body.suffix or "",
        grammar=body.structure(),
        prompt_logprobs=body.logprobs if body.echo else None,
        # The best are chosen by them.
        logprobs=0 if body.logprobs is None and best_of > body.answers else body.logprobs,
        logprobs_shown=body.logprobs is not None,
    )


def _choice(
    index: int,
    text: str,
    finish: str | None,
    logprobs: dict[str, Any] | None,
    calls: Sequence[Any] = (),
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


COMPLETION = Shape(
    whole="text_completion",
    chunk="text_completion",
    id_prefix="cmpl-",
    whole_choice=_choice,
    chunk_choice=_choice,
    logprobs=completion_logprobs,
)
