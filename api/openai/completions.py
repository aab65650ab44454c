"""POST /v1/completions."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.openai.answers import Shape, answer
from api.openai.schemas import CompletionRequest
from api.requests.admission import GenerationRequest, admit
from api.security import TenantDep
from api.state import StateDep

router = APIRouter(tags=["openai"])


@router.post("/completions")
async def create(
    body: CompletionRequest, http: Request, tenant: TenantDep, state: StateDep
) -> Response:
    """Text that goes on from a prompt, streamed with `stream: true`."""
    include_usage = body.include_usage
    request = GenerationRequest(
        model=body.model,
        prompt=body.single_prompt(),
        max_tokens=body.max_tokens,
        **body.sampling(),
    )
    admitted = await admit(state, tenant, http.state.request_id, request)
    return await answer(
        state, http, admitted, _SHAPE, streamed=bool(body.stream), include_usage=include_usage
    )


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


_SHAPE = Shape(
    whole="text_completion",
    chunk="text_completion",
    id_prefix="cmpl-",
    whole_choice=_choice,
    chunk_choice=_choice,
    opening=None,
)
