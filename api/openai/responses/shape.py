"""A response and its events.

`sequence_number` says how far a client has come: 0 to 3 are the opening events, 3 + n is the delta
with which it has n tokens, and the closing ones come after all of them: so a stream that is asked
for again after a number goes on with the next token, at whatever process.
"""

from typing import Any

from api.requests.admission import Admitted
from api.requests.generation import Piece
from api.requests.sse import Event
from loraplex.messages import Shown

OPENING = 3  # sequence number of the last event before the first token
PREFIX = "resp_"


class ResponseWriter:
    """`facts`: the fields that a response repeats of its request."""

    def __init__(self, admitted: Admitted, facts: dict[str, Any]) -> None:
        self._shown: Shown = admitted.shown
        self._facts = facts
        self.text = ""
        self.finish: str | None = None
        self.tokens = 0
        self.cached = 0

    def add(self, index: int, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish or self.finish
        self.tokens = piece.position
        self.cached += piece.cached

    def body(
        self, status: str | None = None, error: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """`status` None: how it ended."""
        ended = "incomplete" if self.finish == "length" else "completed"
        status = status or ended
        over = status in ("completed", "incomplete")
        return {
            "id": PREFIX + self._shown.request,
            "object": "response",
            "created_at": self._shown.created,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"}
            if status == "incomplete"
            else None,
            "model": self._shown.model,
            "output": [self._item(status)] if over else [],
            "usage": self._usage() if over else None,
            **self._facts,
        }

    def opening(self) -> list[dict[str, Any]]:
        item = self._item("in_progress") | {"content": []}
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        return [
            self._event("created", 0, response=self.body("in_progress")),
            self._event("in_progress", 1, response=self.body("in_progress")),
            self._event("output_item.added", 2, output_index=0, item=item),
            self._event("content_part.added", OPENING, **at, part=_part("")),
        ]

    def chunks(self, index: int, piece: Piece) -> list[Event]:
        self.add(index, piece)
        events = []
        if piece.text:
            at = {"item_id": self._item("")["id"], "output_index": 0, "content_index": 0}
            data = self._event(
                "output_text.delta", OPENING + piece.position, **at, delta=piece.text, logprobs=[]
            )
            events.append(Event(data, piece.position))
        return events

    def closing(self) -> list[dict[str, Any]]:
        body = self.body()
        (item,) = body["output"]
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        first = OPENING + self.tokens + 1
        return [
            self._event("output_text.done", first, **at, text=self.text, logprobs=[]),
            self._event("content_part.done", first + 1, **at, part=_part(self.text)),
            self._event("output_item.done", first + 2, output_index=0, item=item),
            self._event(body["status"], first + 3, response=body),
        ]

    def failed(self, code: str, message: str) -> dict[str, Any]:
        body = self.body("failed", {"code": code, "message": message})
        return self._event("failed", OPENING + self.tokens + 1, response=body)

    def _event(self, kind: str, number: int, **fields: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": number, **fields}

    def _item(self, status: str) -> dict[str, Any]:
        return {
            "id": f"msg_{self._shown.request}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_part(self.text)],
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._shown.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._shown.prompt_tokens + self.tokens,
        }


def replay(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a response that is over. Those of its tokens are one, with the last number that
    they may have had: who has some of them has asked while it ran."""
    if not body["output"]:
        number = OPENING + 1
        kind = f"response.{body['status']}"
        return [{"type": kind, "sequence_number": number, "response": body}]
    (item,) = body["output"]
    (part,) = item["content"]
    tokens = (body["usage"] or {}).get("output_tokens", 0)
    begun = body | {"status": "in_progress", "output": [], "usage": None}
    empty = item | {"status": "in_progress", "content": []}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    last = OPENING + tokens
    found: list[tuple[str, int, dict[str, Any]]] = [
        ("created", 0, {"response": begun}),
        ("in_progress", 1, {"response": begun}),
        ("output_item.added", 2, {"output_index": 0, "item": empty}),
        ("content_part.added", OPENING, {**at, "part": _part("")}),
        ("output_text.delta", last, {**at, "delta": part["text"], "logprobs": []}),
        ("output_text.done", last + 1, {**at, "text": part["text"], "logprobs": []}),
        ("content_part.done", last + 2, {**at, "part": part}),
        ("output_item.done", last + 3, {"output_index": 0, "item": item}),
        (body["status"], last + 4, {"response": body}),
    ]
    return [{"type": f"response.{kind}", "sequence_number": n, **rest} for kind, n, rest in found]


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
