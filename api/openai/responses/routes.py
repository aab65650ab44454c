"""/v1/responses: create, retrieve (also as a stream, from where one was), cancel, delete."""

import time
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from sqlmodel import Session

from api.errors import bad_request
from api.openai.responses import stored
from api.openai.responses.schemas import ResponseCreate
from api.openai.responses.shape import OPENING, PREFIX, ResponseWriter, replay
from api.requests.admission import Admitted, admit
from api.requests.comeback import come_back, find
from api.requests.gather import gather
from api.requests.generation import Piece
from api.requests.request import GenerationRequest
from api.requests.resolve import model_within
from api.requests.sse import Event, encode, stream
from api.requests.terms import LastEvent, terms
from api.security import ForInference, caller_of
from api.state import State, StateDep
from loraplex.entities import StoredResponse

router = APIRouter(prefix="/responses", tags=["responses"])


@router.post("")
async def create(
    body: ResponseCreate, http: Request, tenant: ForInference, state: StateDep
) -> Response:
    """An answer with `stream: true` as events, with `background: true` to come for later."""
    if body.background and body.store is False:
        raise bad_request("background needs store: the answer is come for later.", "store")
    context = await _context(state, tenant, body)
    asked = terms(http, state.settings)
    if body.background:  # nobody need wait for it
        asked = replace(asked, grace_s=asked.timeout_s + 60)
    admitted = await admit(state, caller_of(http), asked, _generation(body, http, context))
    writer = ResponseWriter(admitted, _facts(body))
    if body.store is not False:
        try:
            await stored.begin(state, tenant, writer, context)
        except BaseException:
            state.inflight.gone(admitted.ongoing)
            raise
    if body.background and body.stream:  # kept also when its client leaves
        last = LastEvent(admitted.shown.request, [])
        twin = await come_back(state, tenant, last)
        stored.in_background(stored.finish(state, twin, ResponseWriter(twin, _facts(body))))
    if body.stream:
        return _stream(state, admitted, writer, kept=body.store is not False)
    if body.background:
        stored.in_background(stored.finish(state, admitted, writer))
        return JSONResponse(writer.body("queued"), headers=admitted.headers)
    whole = await gather(state, http, admitted, writer.add, may_come_later=False)
    answer = writer.body()
    if whole and body.store is not False:
        await stored.end(state, answer)
    return JSONResponse(answer, headers=admitted.headers)


@router.get("/{response_id}")
async def retrieve(
    response_id: str,
    tenant: ForInference,
    state: StateDep,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> Response:
    """With `stream`: its events, those after `starting_after` (a `sequence_number`)."""
    row = await stored.need(state, tenant, response_id)
    if not stream:
        if starting_after is not None:
            raise bad_request("starting_after is for streams: set stream.", "starting_after")
        return JSONResponse(await stored.current(state, row))
    after = -1 if starting_after is None else starting_after
    body = await stored.current(state, row)
    # Its tokens are kept for as long after its end, which came after its beginning.
    kept = time.time() < body["created_at"] + state.settings.retention_s
    if body["status"] in stored.OVER and not kept:
        return _replayed(body, after)
    # From its beginning: the last events have the whole text.
    last = LastEvent(response_id.removeprefix(PREFIX), [])
    admitted = await come_back(state, tenant, last)
    writer = ResponseWriter(admitted, stored.facts_of(row.body))
    return _stream(state, admitted, writer, kept=True, after=after)


@router.post("/{response_id}/cancel")
async def cancel(response_id: str, tenant: ForInference, state: StateDep) -> Response:
    """Stop it; one that has ended stays as it is."""
    row = await stored.need(state, tenant, response_id)
    body = await stored.current(state, row)
    if body["status"] in ("queued", "in_progress"):
        lane, recorded = await find(state, tenant, response_id.removeprefix(PREFIX))
        await state.broker.cancel(lane, recorded.shown.request, recorded.entries)
        body = body | {"status": "cancelled"}
        await stored.end(state, body)
    return JSONResponse(body)


@router.delete("/{response_id}")
async def delete(response_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """It is forgotten; where it runs still, it is stopped."""
    await cancel(response_id, tenant, state)

    def write() -> None:
        with Session(state.database) as session:
            session.delete(session.get_one(StoredResponse, response_id))
            session.commit()

    await run_in_threadpool(write)
    return {"id": response_id, "object": "response.deleted", "deleted": True}


async def _context(state: State, tenant: str, body: ResponseCreate) -> list[dict[str, str]]:
    """The messages up to the answer, but for the instructions, which hold for one turn."""
    before: list[dict[str, str]] = []
    if body.previous_response_id is not None:
        row = await stored.need(state, tenant, body.previous_response_id, "previous_response_id")
        answer = await stored.current(state, row)
        if not answer["output"]:
            message = (
                f"Response {row.id!r} is {answer['status']}: there is no answer to go on from."
            )
            raise bad_request(message, "previous_response_id")
        text = "".join(part["text"] for item in answer["output"] for part in item["content"])
        before = [*row.context, {"role": "assistant", "content": text}]
    return before + body.messages()


def _generation(
    body: ResponseCreate, http: Request, context: list[dict[str, str]]
) -> GenerationRequest:
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    return GenerationRequest(
        surface="response",
        streamed=bool(body.stream),
        model=model_within(http.path_params.get("deployment"), body.model),
        prompts=[system + context],
        max_tokens=body.max_output_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,
        grammar=body.text.format.grammar(),
        user=body.user or "",
    )


def _facts(body: ResponseCreate) -> dict[str, Any]:
    return {
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": True,
        "previous_response_id": body.previous_response_id,
        "reasoning": None,
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": body.text.model_dump(by_alias=True, exclude_none=True),
        "tool_choice": "none",
        "tools": [],
        "top_p": body.top_p or 1.0,
        "truncation": "disabled",
        "user": body.user,
    }


def _replayed(body: dict[str, Any], after: int) -> Response:
    """The events of a response that is over, its text in one. Who has a part of the text already
    finds the whole in the last events."""
    events = [event for event in replay(body) if event["sequence_number"] > after]
    if after > OPENING:
        events = [event for event in events if "delta" not in event]
    text = b"".join(encode(event, name=event["type"]) for event in events)
    return Response(text, media_type="text/event-stream", headers={"cache-control": "no-cache"})


def _stream(
    state: State, admitted: Admitted, writer: ResponseWriter, *, kept: bool, after: int = -1
) -> Response:
    def fresh(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [event for event in events if event["sequence_number"] > after]

    def chunks(index: int, piece: Piece) -> list[Event]:
        return [e for e in writer.chunks(index, piece) if e.data["sequence_number"] > after]

    def closing() -> list[dict[str, Any]]:
        if kept:
            stored.in_background(stored.end(state, writer.body()))
        return fresh(writer.closing())

    return stream(
        *(state, admitted, fresh(writer.opening()), chunks, closing),
        failed=lambda error: writer.failed(error.code, error.message),
        end=b"",
        named=True,
    )
