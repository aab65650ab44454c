"""What is told of a generation in the span of its HTTP request, which FastAPI makes."""

import random
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span

from api.requests.request import GenerationRequest
from loraplex.messages import Shown
from loraplex.settings import ApiSettings
from loraplex.tracing import tracer


class _Piece(Protocol):
    @property
    def position(self) -> int: ...

    @property
    def finish(self) -> str | None: ...


P = TypeVar("P", bound=tuple[int, _Piece])
_OPERATIONS = {"chat": "chat", "response": "chat", "embedding": "embeddings"}


def left_out(settings: ApiSettings) -> Callable[[MutableMapping[str, Any]], bool]:
    """Which requests aren't traced: known before anything is done for their spans."""

    def excluded(scope: MutableMapping[str, Any]) -> bool:
        if not settings.otlp_endpoint:
            return True
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        if given is not None:
            return not _sampled(given)
        return random.random() >= settings.trace_sample

    return excluded


def _sampled(traceparent: bytes) -> bool:
    """By W3C's flags: who asks decides."""
    try:
        return bool(int(traceparent[-2:], 16) & 1)
    except ValueError:
        return False


def step(name: str) -> AbstractContextManager[object]:
    """A span within the request's, if that is traced."""
    traced = trace.get_current_span().is_recording()
    return tracer.start_as_current_span(name) if traced else nullcontext()


def tell_of(shown: Shown, request: GenerationRequest) -> None:
    """In the request's span."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attributes(
        {
            "gen_ai.operation.name": _OPERATIONS.get(shown.surface, "text_completion"),
            "gen_ai.provider.name": "loraplex",
            "gen_ai.request.model": shown.model,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.top_p": request.top_p,
            "gen_ai.request.choice.count": shown.answers,
            "gen_ai.response.id": shown.request,
            "gen_ai.usage.input_tokens": shown.prompt_tokens,
            "loraplex.adapter": shown.adapter,
        }
    )
    if request.max_tokens is not None:
        span.set_attribute("gen_ai.request.max_tokens", request.max_tokens)


async def delivered(found: AsyncIterator[list[P]]) -> AsyncIterator[list[P]]:
    """The same pieces, with a span from the first of them to the last."""
    request, began = trace.get_current_span(), time.time()
    span: Span | None = None
    tokens: dict[int, int] = {}
    reasons: dict[int, str] = {}
    try:
        async for pieces in found:
            if span is None:
                if request.is_recording():
                    waited = time.time() - began
                    request.set_attribute("gen_ai.server.time_to_first_token", waited)
                span = tracer.start_span("delivery")
            for index, piece in pieces:
                tokens[index] = piece.position
                if piece.finish:
                    reasons[index] = piece.finish
            yield pieces
    finally:
        if request.is_recording():  # not of an answer that its client comes back for
            request.set_attribute("gen_ai.usage.output_tokens", sum(tokens.values()))
            request.set_attribute("gen_ai.response.finish_reasons", list(reasons.values()))
        if span is not None:
            span.end()
