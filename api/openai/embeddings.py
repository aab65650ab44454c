"""POST /v1/embeddings: a base model's or an adapter's hidden states of texts, as vectors."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from api.errors import bad_request
from api.openai.schemas import TokenId
from api.requests.admission import Admitted
from api.requests.collect import collect
from api.requests.embed import Pooling, Vectors, embed
from api.requests.resolve import model_within
from api.security import ForInference
from api.state import State, StateDep
from api.text import Text

router = APIRouter(tags=["openai"])

_MOST_INPUTS = 256

Tokens = Annotated[list[TokenId], Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: Text = Field(max_length=512)
    input: Text | list[Text] | Tokens | list[Tokens]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, le=65536, description="The first so many.")
    user: Text | None = None
    pooling: Pooling = Field("mean", description="Of the prompt's tokens.")

    def prompts(self) -> list[str | list[int]]:
        """Raises ApiError."""
        given: Any = self.input
        alone = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        prompts = [given] if alone else list(given)
        if not 0 < len(prompts) <= _MOST_INPUTS or not all(prompts):
            message = f"input: 1 to {_MOST_INPUTS} texts or lists of tokens, none of them empty."
            raise bad_request(message, "input")
        return prompts


@router.post("/embeddings")
async def create(
    body: EmbeddingRequest, http: Request, _: ForInference, state: StateDep
) -> JSONResponse:
    """Vectors of length 1: the mean of a text's hidden states, or its last token's."""
    model = model_within(http.path_params.get("deployment"), body.model)
    vectors, admitted = await embed(
        state, http, model, body.prompts(), body.pooling, body.user or ""
    )
    answer = await run_in_threadpool(_answer, body, vectors, admitted)
    return JSONResponse(answer, headers=admitted.headers)


async def whole(
    state: State, admitted: Admitted, body: EmbeddingRequest, unwanted: Callable[[], bool]
) -> dict[str, Any]:
    """The body of an answer, for who is no HTTP client. Raises ApiError."""
    vectors = Vectors()
    await collect(state, admitted, vectors.add, unwanted)
    return await run_in_threadpool(_answer, body, vectors.of(admitted), admitted)


def _answer(body: EmbeddingRequest, vectors: Sequence[bytes], admitted: Admitted) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": _shown(vector, body)}
        for index, vector in enumerate(vectors)
    ]
    tokens = admitted.shown.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": admitted.shown.model, "usage": usage}


def _shown(raw: bytes, body: EmbeddingRequest) -> list[float] | str:
    """Raises ApiError."""
    vector = np.frombuffer(raw, "<f4")
    if body.dimensions is not None:
        if body.dimensions > len(vector):
            message = f"dimensions: this model's vectors have {len(vector)}."
            raise bad_request(message, "dimensions")
        vector = vector[: body.dimensions]
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(each) for each in vector]
