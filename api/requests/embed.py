"""Embeddings of prompts, whatever the surface."""

from collections.abc import Sequence
from typing import Literal

from fastapi import Request

from api.errors import ApiError
from api.requests.admission import Admitted
from api.requests.comeback import admit_or_resume
from api.requests.gather import gather
from api.requests.generation import Piece
from api.requests.request import GenerationRequest, Prompt
from api.state import State

Pooling = Literal["mean", "last"]


async def embed(
    state: State,
    http: Request,
    model: str,
    prompts: Sequence[Prompt],
    pooling: Pooling,
    user: str = "",
) -> tuple[list[bytes], Admitted]:
    """Of each prompt a vector of length 1 (float32, little-endian). Raises ApiError."""
    admitted = await admit_or_resume(state, http, generation(model, prompts, pooling, user))
    vectors = Vectors()
    whole = await gather(state, http, admitted, vectors.add, may_come_later=False)
    return vectors.of(admitted) if whole else [], admitted


def generation(
    model: str, prompts: Sequence[Prompt], pooling: Pooling, user: str = ""
) -> GenerationRequest:
    return GenerationRequest(
        surface="embedding",
        model=model,
        prompts=prompts,
        max_tokens=0,
        temperature=0.0,
        pooling=pooling,
        user=user,
    )


class Vectors:
    """What comes of a request's prompts."""

    def __init__(self) -> None:
        self._found: dict[int, bytes] = {}

    def add(self, index: int, piece: Piece) -> None:
        if piece.embedding is not None:
            self._found[index] = piece.embedding

    def of(self, admitted: Admitted) -> list[bytes]:
        """When all have come. Raises ApiError."""
        if len(self._found) < admitted.shown.answers:
            message = "This replica is too old to make embeddings."
            raise ApiError(503, "server_error", message, retry_after_s=30)
        return [self._found[index] for index in range(admitted.shown.answers)]
