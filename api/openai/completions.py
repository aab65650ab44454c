"""POST /v1/completions."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.openai.answers import Shape, answer
from api.openai.logprobs import completion_logprobs
from api.openai.schemas import CompletionRequest
from api.requests.admission import Admitted, GenerationRequest, admit
from api.security import TenantDep
from api.state import StateDep

router = APIRouter(tags=["openai"])


@router.post("/completions")
async def create(
    body: CompletionRequest, http: Request, tenant: TenantDep, state: StateDep
) -> Response:
    """Text that goes on from a prompt, streamed with `stream: true`."""
    include_usage = body.include_usage
    prompts, best_of = body.prompts(), body.candidates
    request = GenerationRequest(
        model=body.model,
        prompts=prompts,
        max_tokens=body.max_tokens,
        **body.sampling() | {"n": best_of},
        suffix=body.suffix or "",
        prompt_logprobs=body.logprobs if body.echo else None,
        # The best are chosen by them.
        logprobs=0 if body.logprobs is None and best_of > body.answers else body.logprobs,
    )
    admitted = await admit(state, tenant, http.state.request_id, request)
    return await answer(
        *(state, http, admitted, _SHAPE),
        streamed=bool(body.stream),
        include_usage=include_usage,
        prefixes=_prefixes(prompts, admitted) if body.echo else (),
        best=body.answers,
        logprobs=body.logprobs is not None,
    )


def _prefixes(prompts: list[str | list[int]], admitted: Admitted) -> list[str]:
    """The prompt of each answer, as text."""
    tokenizer = admitted.served.tokenizer
    texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in prompts]
    return [text for text in texts for _ in range(admitted.request.n)]


def _choice(
    index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


_SHAPE = Shape(
    whole="text_completion",
    chunk="text_completion",
    id_prefix="cmpl-",
    whole_choice=_choice,
    chunk_choice=_choice,
    logprobs=completion_logprobs,
)
