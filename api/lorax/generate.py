"""LoRAX' native routes, of one deployment: under /deployments/{name}, and where Predibase's SDK
looks for them; /info, /health, /tokenize beside them.

https://github.com/predibase/lorax: its router's API; clients post to the base URL itself.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.errors import ApiError
from api.lorax.answers import answer
from api.lorax.metrics import exposition
from api.lorax.schemas import GenerateRequest
from api.lorax.sources import refs_of
from api.openai.schemas import neutral
from api.requests.comeback import admit_or_resume
from api.requests.embed import embed
from api.requests.prepare import encoding
from api.requests.resolve import need_usable
from api.security import ForInference, ForLooking, caller_of
from api.state import StateDep
from api.text import Text
from loraplex import __version__
from loraplex.entities import Deployment
from loraplex.not_serving import not_serving
from loraplex.status import ADMITTING


async def _of_a_deployment(deployment: str) -> None:
    """The parameters of a path."""


async def _of_a_tenants_deployment(short_code: str, deployment: str) -> None:
    """The same, as Predibase's SDK has it."""


PREFIXES: tuple[tuple[str, Callable[..., Awaitable[None]]], ...] = (
    ("/deployments/{deployment}", _of_a_deployment),
    ("/{short_code}/deployments/v2/llms/{deployment}", _of_a_tenants_deployment),
)

router = APIRouter(tags=["lorax"])

_NOT_TOLD = (
    *("model_sha", "model_dtype", "model_device_type", "sha", "docker_label"),
    *("waiting_served_ratio", "max_waiting_tokens", "max_batch_total_tokens"),
    *("request_logger_url", "embedding_model", "validation_workers"),
)


def _deployment(deployment: str, tenant: ForInference, state: StateDep) -> Deployment:
    with Session(state.database, expire_on_commit=False) as session:
        return need_usable(session, tenant, deployment)


DeploymentDep = Annotated[Deployment, Depends(_deployment)]


class Asked:
    """A request to one deployment."""

    def __init__(
        self,
        deployment: DeploymentDep,
        body: GenerateRequest,
        http: Request,
        state: StateDep,
    ) -> None:
        self.deployment, self.body = deployment, body
        self._http, self._state = http, state

    async def answer(self, *, streamed: bool, as_list: bool = False) -> Response:
        # What is wrong is told before anything is imported.
        request = self.body.generation(self.deployment, {}, streamed=streamed)
        outside = self.body.outside(self.deployment.base_model)
        if outside:
            refs = await refs_of(self._state, caller_of(self._http), self.body, outside)
            request = self.body.generation(self.deployment, refs, streamed=streamed)
        admitted = await admit_or_resume(self._state, self._http, request)
        return await answer(self._state, self._http, admitted, streamed=streamed, as_list=as_list)


AskedDep = Annotated[Asked, Depends()]


@router.post("")
@router.post("/", include_in_schema=False)
async def compat(asked: AskedDep) -> Response:
    """Streamed with `stream: true`, else a list of one answer."""
    return await asked.answer(streamed=bool(asked.body.stream), as_list=True)


@router.post("/generate")
async def generate(asked: AskedDep) -> Response:
    """A whole answer."""
    return await asked.answer(streamed=False)


@router.post("/generate_stream")
async def generate_stream(asked: AskedDep) -> Response:
    """An event for each token; the last one has the whole text."""
    return await asked.answer(streamed=True)


@router.get("/health")
def health(deployment: DeploymentDep) -> dict[str, str]:
    """Does it take requests? Also where none of its replicas runs: the next request starts one."""
    if deployment.status not in ADMITTING:
        reason = not_serving(deployment.name, deployment.status, deployment.reason)
        raise ApiError(503, f"deployment_{deployment.status}", reason)
    return {"status": "ok"}


@router.get("/info")
async def info(deployment: DeploymentDep, state: StateDep) -> dict[str, Any]:
    """As LoRAX tells of itself; null: nobody knows, or it isn't meant so here."""
    served = await run_in_threadpool(state.resolver.served_for, deployment)
    reports = (await state.broker.reports([deployment.lane]))[0]
    return dict.fromkeys(_NOT_TOLD) | {
        "model_id": deployment.base_model,
        "max_concurrent_requests": sum(report.capacity for report in reports) or None,
        "max_best_of": 128,
        "max_stop_sequences": 4,
        "max_input_length": served.context_length - 1,
        "max_total_tokens": served.context_length,
        "version": __version__,
        "eager_prefill": False,
    }


@router.get("/metrics", response_class=Response)
async def metrics(tenant: ForLooking, deployment: DeploymentDep, state: StateDep) -> Response:
    """For Prometheus: one's own answers; of one's own deployment everybody's. An answer is counted
    a second or two after its end, once, whichever API process and replica it came through."""
    return await exposition(state, tenant, deployment)


class EmbedRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inputs: Text = Field(min_length=1)
    parameters: Annotated[Any, neutral({})] = None  # as its client sends them
    stream: Annotated[Any, neutral(False)] = None


@router.post("/embed")
async def embed_text(
    body: EmbedRequest, http: Request, _: ForInference, deployment: DeploymentDep, state: StateDep
) -> dict[str, list[float]]:
    """A text's vector: the mean of its tokens' hidden states, of length 1."""
    (vector,), _admitted = await embed(state, http, deployment.name, [body.inputs], "mean")
    return {"embeddings": np.frombuffer(vector, "<f4").tolist()}


class TokenizeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inputs: str = Field(min_length=1)
    add_special_tokens: bool | None = True


@router.post("/tokenize")
def tokenize(
    body: TokenizeRequest, deployment: DeploymentDep, state: StateDep
) -> list[dict[str, Any]]:
    """The ids of a text's tokens, and where in it they are (in characters)."""
    served = state.resolver.served_for(deployment)
    special = bool(body.add_special_tokens)
    found = encoding(served, body.inputs, special=special)
    return [
        {"id": token, "text": body.inputs[start:stop], "start": start, "stop": stop}
        for token, (start, stop) in zip(found.ids, found.offsets, strict=True)
    ]
