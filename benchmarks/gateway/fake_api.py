"""The API process with an engine that has every answer at once: what the gateway itself costs.

Keys, scopes, limits, resolution, template, tokenizer, answers are the real ones; the limiter asks
the real Valkey. With `--bare` it is one FastAPI route that takes and gives the same bodies.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from api.app import build
from api.openai.schemas import ChatRequest
from api.requests.inflight import Inflight, Ongoing
from api.requests.waiting import Waiting
from benchmarks.delivery.fake_replica import token
from loraplex.garbage import collect_less
from loraplex.keys import Lane
from loraplex.messages import Job, Shown, TokenEvent
from loraplex.settings import ApiSettings


class Instant(Inflight):
    """`Inflight` without a queue. What the limiter holds is settled as ever."""

    async def enqueue(
        self,
        lane: Lane,
        jobs: Sequence[Job],
        shown: Shown,
        *,
        reserved: Sequence[tuple[str, int]] = (),
        **bounds: Any,
    ) -> Ongoing:
        answers = [Waiting(lane, job.request) for job in jobs]
        for answer, job in zip(answers, jobs, strict=True):
            tokens = [token(position) for position in range(job.sampling.max_tokens)]
            answer.accept(TokenEvent(job.request, 0, tokens, "length"), "")
        return Ongoing(lane, shown, "", answers, reserved)

    async def next(self, waiting: Waiting, deadline: float) -> list[TokenEvent]:
        return waiting.pop()

    async def _leave(self, ongoing: Ongoing, *, unserved: bool) -> None:
        """Nothing runs."""


def build_fake(settings: ApiSettings) -> FastAPI:
    app = build(settings)
    ordinary = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ordinary(app):
            state = app.state.loraplex
            app.state.loraplex = replace(state, inflight=Instant(state.broker, state.limiter))
            yield

    app.router.lifespan_context = lifespan
    return app


def build_bare() -> FastAPI:
    app = FastAPI()
    usage = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}
    message = {"role": "assistant", "content": " word" * 8, "refusal": None}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    async def create(body: ChatRequest) -> JSONResponse:
        head = {"id": "chatcmpl-" + "0" * 28, "created": 0, "model": body.model}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
        answer = {"object": "chat.completion", "system_fingerprint": None, "choices": [choice]}
        return JSONResponse(head | answer | {"usage": usage})

    return app


def main() -> None:
    settings = ApiSettings()
    app = build_bare() if "--bare" in sys.argv else build_fake(settings)
    collect_less()
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
