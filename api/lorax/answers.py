"""A request's answer as LoRAX' clients read it: a whole, or an event for each token."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from api.errors import bad_request, lorax_body
from api.openai.logprobs import token_bytes
from api.requests.admission import Admitted
from api.requests.gather import gather
from api.requests.generation import KnownToken, Piece
from api.requests.sse import Event, stream
from api.state import State
from loraplex.messages import Shown


async def answer(
    state: State, http: Request, admitted: Admitted, *, streamed: bool, as_list: bool = False
) -> Response:
    """The response of a request. Raises ApiError when it fails before it is sent.

    The last event has the whole text, so one that was cut off is sent again from its beginning.
    """
    writer = _Writer(replace(admitted, received=None))
    if streamed and admitted.shown.best < admitted.shown.n:
        state.inflight.done(admitted.ongoing)
        raise bad_request("The best of several can't be known in a stream.", "best_of")
    if streamed:
        return stream(
            *(state, writer.admitted, [], writer.events, list),
            failed=lambda error: lorax_body(error)[1],
            end=b"",
        )
    started = time.perf_counter()
    await gather(state, http, writer.admitted, writer.add)
    whole = await run_in_threadpool(writer.whole)
    headers = writer.headers(time.perf_counter() - started)
    return JSONResponse([whole] if as_list else whole, headers=headers)


@dataclass(slots=True)
class _Text:
    """One of the candidates, as far as it has come."""

    text: str = ""
    finish: str = ""
    tokens: list[KnownToken] = field(default_factory=list)
    prompt: list[KnownToken] = field(default_factory=list)

    @property
    def likelihood(self) -> float:
        known = [each.logprobs.chosen for each in self.tokens if each.logprobs]
        return sum(known) / max(1, len(known))


class _Writer:
    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self._shown = admitted.shown
        self._served = admitted.served
        self._texts = [_Text() for _ in range(self._shown.answers)]

    def add(self, index: int, piece: Piece) -> None:
        text = self._texts[index]
        text.text += piece.text
        text.tokens += piece.logprobs
        text.prompt += piece.prompt
        text.finish = _finish(self._shown, text.text, piece.finish) if piece.finish else ""

    def events(self, index: int, piece: Piece) -> list[Event]:
        """One for each token; the last one has the whole text. Each says what the client has by
        it; the last one is the end, which is one position further."""
        self.add(index, piece)
        first = piece.position - len(piece.logprobs)
        events = [
            Event(self._event(token), first + number)
            for number, token in enumerate(piece.logprobs, 1)
        ]
        if piece.finish:
            text = self._texts[index]
            if not events:  # it ended without a further token
                events = [Event(self._event(text.tokens[-1]), piece.position)]
            details = self._details(text, piece.position)
            last = events[-1].data | {"generated_text": self._full(text), "details": details}
            events[-1] = Event(last, piece.position + 1)
        return events

    def whole(self) -> dict[str, Any]:
        best = max(self._texts, key=lambda text: text.likelihood)
        details = None
        if self._shown.logprobs:
            details = self._details(best, len(best.tokens)) | {
                "prefill": [self._token(each) for each in best.prompt],
                "tokens": [self._token(each) for each in best.tokens],
            }
        return {"generated_text": self._full(best), "details": details}

    def headers(self, seconds: float) -> dict[str, str]:
        """Those of LoRAX' that are known here; times in milliseconds."""
        produced = sum(len(text.tokens) for text in self._texts)
        prompt = self._shown.prompt_tokens
        return {
            **self.admitted.headers,
            "x-total-time": f"{1000 * seconds:.0f}",
            "x-time-per-token": f"{1000 * seconds / max(1, produced):.0f}",
            "x-prompt-tokens": str(prompt),
            "x-generated-tokens": str(produced),
            "x-total-tokens": str(prompt + produced),
            "x-model-id": self._shown.model.partition(":")[0],
        }

    def _event(self, token: KnownToken) -> dict[str, Any]:
        return {"token": self._token(token), "generated_text": None, "details": None}

    def _token(self, known: KnownToken) -> dict[str, Any]:
        shown = self._named(known.token, known.text)
        shown["logprob"] = known.logprobs.chosen if known.logprobs else None
        if known.logprobs and known.logprobs.top:
            shown["alternative_tokens"] = [
                self._named(token) | {"logprob": logprob} for token, logprob in known.logprobs.top
            ]
        return shown

    def _named(self, token: int, text: str | None = None) -> dict[str, Any]:
        """`text`: what it added to the answer; None: what it is by itself."""
        special = token in self._served.special
        if special or text is None:
            text = token_bytes(self._served.tokenizer, token).decode(errors="replace")
        return {"id": token, "text": text, "special": special}

    def _details(self, text: _Text, tokens: int) -> dict[str, Any]:
        return {
            "finish_reason": text.finish,
            "prompt_tokens": self._shown.prompt_tokens,
            "generated_tokens": tokens,
            "seed": None,
        }

    def _full(self, text: _Text) -> str:
        return "".join(self._shown.prefixes) + text.text


def _finish(shown: Shown, text: str, finish: str) -> str:
    if finish == "length":
        return "length"
    return "stop_sequence" if any(text.endswith(stop) for stop in shown.stop) else "eos_token"
