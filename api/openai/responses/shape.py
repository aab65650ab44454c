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
        return _opening(self.body("in_progress"), self._item("in_progress"))

    def chunks(self, index: int, piece: Piece) -> list[Event]:
        self.add(index, piece)
        if not piece.text:
            return []
        data = _delta(self._item("")["id"], OPENING + piece.position, piece.text)
        return [Event(data, piece.position)]

    def closing(self) -> list[dict[str, Any]]:
        return _closing(self.body(), OPENING + self.tokens + 1)

    def failed(self, code: str, message: str) -> dict[str, Any]:
        body = self.body("failed", {"code": code, "message": message})
        return _event("failed", OPENING + self.tokens + 1, response=body)

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
        return [_event(body["status"], OPENING + 1, response=body)]
    (item,) = body["output"]
    (part,) = item["content"]
    begun = body | {"status": "in_progress", "output": [], "usage": None}
    last = OPENING + (body["usage"] or {}).get("output_tokens", 0)
    opening = _opening(begun, item | {"status": "in_progress"})
    return [*opening, _delta(item["id"], last, part["text"]), *_closing(body, last + 1)]


def _opening(body: dict[str, Any], item: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _event("created", 0, response=body),
        _event("in_progress", 1, response=body),
        _event("output_item.added", 2, output_index=0, item=item | {"content": []}),
        _event("content_part.added", OPENING, **_at(item["id"]), part=_part("")),
    ]


def _delta(item: str, number: int, text: str) -> dict[str, Any]:
    return _event("output_text.delta", number, **_at(item), delta=text, logprobs=[])


def _closing(body: dict[str, Any], first: int) -> list[dict[str, Any]]:
    (item,) = body["output"]
    (part,) = item["content"]
    at = _at(item["id"])
    return [
        _event("output_text.done", first, **at, text=part["text"], logprobs=[]),
        _event("content_part.done", first + 1, **at, part=part),
        _event("output_item.done", first + 2, output_index=0, item=item),
        _event(body["status"], first + 3, response=body),
    ]


def _at(item: str) -> dict[str, Any]:
    return {"item_id": item, "output_index": 0, "content_index": 0}


def _event(kind: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": number, **fields}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
