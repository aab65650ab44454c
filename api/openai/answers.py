"""One way to answer, for chat and completions, for new requests and for those that are resumed:
stream it, or gather it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from tokenizers import Tokenizer

from api.openai.logprobs import Known
from api.openai.tool_answers import ToolCallText, add_part, delta
from api.requests.admission import Admitted
from api.requests.collect import collect
from api.requests.comeback import admit_or_resume
from api.requests.gather import gather
from api.requests.generation import KnownToken, Piece
from api.requests.request import GenerationRequest
from api.requests.sse import Event, stream
from api.state import State
from loraplex.broker.cancellation import answer_id


class MakeChoice(Protocol):
    def __call__(
        self,
        index: int,
        text: str,
        finish: str | None,
        logprobs: dict[str, Any] | None,
        calls: Any = (),
    ) -> dict[str, Any]:
        """One entry of `choices`. `calls`: of tools, whole or what is new of them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the two endpoints."""

    whole: str  # object names
    chunk: str
    id_prefix: str
    whole_choice: MakeChoice
    chunk_choice: MakeChoice
    logprobs: Callable[[Tokenizer, Known], dict[str, Any]]
    opening: Callable[[int], dict[str, Any]] | None = None  # the first chunk's choice


@dataclass(slots=True)
class _Answer:
    """One choice as far as it has come."""

    name: str
    prefix: str  # of its text: the prompt, where it is echoed
    text: str = ""
    finish: str | None = None
    tokens: int = 0
    cached: int = 0  # of its prompt
    prompt: list[KnownToken] = field(default_factory=list)  # if it is scored
    logprobs: list[KnownToken] = field(default_factory=list)
    calls: list[ToolCallText] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish
        self.tokens = piece.position
        self.cached += piece.cached
        self.prompt += piece.prompt
        self.logprobs += piece.logprobs
        for part in piece.calls:
            add_part(self.calls, self.name, part)

    @property
    def likelihood(self) -> float:
        """Mean log-probability of its tokens."""
        known = [each.logprobs.chosen for each in self.logprobs if each.logprobs]
        return sum(known) / max(1, len(known))


async def respond(
    state: State, http: Request, request: GenerationRequest, shape: Shape
) -> Response:
    """Raises ApiError."""
    admitted = await admit_or_resume(state, http, request)
    return await answer(state, http, admitted, shape=shape, streamed=request.streamed)


async def answer(
    state: State, http: Request, admitted: Admitted, *, shape: Shape, streamed: bool
) -> Response:
    """The response of a request. Raises ApiError when it fails before it is sent."""
    if not streamed:  # a whole, whatever of it was received before
        admitted = replace(admitted, received=None)
    writer = _Writer(admitted, shape)
    if streamed:
        return stream(state, admitted, writer.opening(), writer.chunks, writer.closing)
    await gather(state, http, admitted, lambda index, piece: writer.answers[index].add(piece))
    # Many log-probabilities take a while to write.
    logprobs = admitted.shown.logprobs
    body = await run_in_threadpool(writer.whole) if logprobs else writer.whole()
    return JSONResponse(body, headers=admitted.headers)


async def whole(
    state: State, admitted: Admitted, shape: Shape, unwanted: Callable[[], bool]
) -> dict[str, Any]:
    """The body of a whole answer, for who is no HTTP client. When it is left early, it may be come
    back for, unless it is `unwanted` by then. Raises ApiError."""
    writer = _Writer(admitted, shape)
    await collect(state, admitted, lambda index, piece: writer.answers[index].add(piece), unwanted)
    return await run_in_threadpool(writer.whole)


class _Writer:
    """Pieces → what the client reads."""

    def __init__(self, admitted: Admitted, shape: Shape) -> None:
        self._shown = shown = admitted.shown
        self._tokenizer = admitted.served.tokenizer
        self._shape = shape
        prefixes = shown.prefixes or [""] * (shown.answers // shown.n)
        each = (prefix for prefix in prefixes for _ in range(shown.n))
        self.answers = [
            _Answer(answer_id(shown.request, index), prefix) for index, prefix in enumerate(each)
        ]
        self._head = {
            "id": f"{shape.id_prefix}{shown.request}",
            "created": shown.created,
            "model": shown.model,
            "system_fingerprint": None,
        }

    def whole(self) -> dict[str, Any]:
        choices = [
            self._shape.whole_choice(
                *(index, answer.prefix + answer.text, answer.finish),
                self._logprobs(answer.prompt, answer.logprobs, answer.prefix),
                answer.calls,
            )
            for index, answer in enumerate(self._best())
        ]
        return self._head | {
            "object": self._shape.whole,
            "choices": choices,
            "usage": self._usage(),
        }

    def opening(self) -> list[dict[str, Any]]:
        """The first event, of all answers, where there is anything to tell."""
        choices = []
        for index, answer in enumerate(self.answers):
            if self._shape.opening is not None:
                choices.append(self._shape.opening(index))
            elif answer.prefix and not self._shown.scored:  # else it comes with the first piece
                choices.append(self._shape.chunk_choice(index, answer.prefix, None, None))
        return [self._chunk(*choices)] if choices else []

    def chunks(self, index: int, piece: Piece) -> list[Event]:
        """Events of a piece, each with the position that the client has reached by it."""
        answer, events = self.answers[index], []
        answer.add(piece)
        text = answer.prefix + piece.text if piece.prompt else piece.text
        if text or piece.calls or (piece.logprobs and self._shown.logprobs):
            known = self._logprobs(piece.prompt, piece.logprobs, answer.prefix)
            calls = [delta(answer.name, part) for part in piece.calls]
            choice = self._shape.chunk_choice(index, text, None, known, calls)
            events.append(Event(self._chunk(choice), piece.position))
        if piece.finish:
            choice = self._shape.chunk_choice(index, "", piece.finish, None)
            events.append(Event(self._chunk(choice), piece.position + 1))
        return events

    def closing(self) -> list[dict[str, Any]]:
        if not self._shown.include_usage:
            return []
        return [self._chunk() | {"usage": self._usage()}]

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        chunk = self._head | {"object": self._shape.chunk, "choices": list(choices)}
        return chunk | ({"usage": None} if self._shown.include_usage else {})

    def _logprobs(self, prompt: Known, output: Known, prefix: str) -> dict[str, Any] | None:
        if not self._shown.logprobs:
            return None
        moved = (each._replace(offset=each.offset + len(prefix)) for each in output)
        return self._shape.logprobs(self._tokenizer, [*prompt, *moved])

    def _best(self) -> list[_Answer]:
        """Of each prompt's answers the likeliest, in the order of the prompts."""
        n, kept = self._shown.n, self._shown.best
        chosen: list[_Answer] = []
        for start in range(0, len(self.answers), n):
            group = self.answers[start : start + n]
            best = sorted(group, key=lambda each: -each.likelihood) if kept < n else group
            chosen += best[:kept]
        return chosen

    def _usage(self) -> dict[str, Any]:
        produced = 0 if self._shown.silent else sum(each.tokens for each in self.answers)
        cached = sum(each.cached for each in self.answers[:: self._shown.n])
        return {
            "prompt_tokens": self._shown.prompt_tokens,
            "completion_tokens": produced,
            "total_tokens": self._shown.prompt_tokens + produced,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
