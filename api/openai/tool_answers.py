"""Calls of tools in chat answers."""

import hashlib
from dataclasses import dataclass
from typing import Any

from api.requests.tool_calls import CallPart


@dataclass(slots=True)
class ToolCallText:
    """A call as far as it has come; arguments are JSON text."""

    id: str
    name: str
    arguments: str

    def whole(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def add_part(calls: list[ToolCallText], answer: str, part: CallPart) -> None:
    if part.name is not None:
        calls.append(ToolCallText(_id(answer, part.index), part.name, part.arguments))
    elif calls:
        calls[-1].arguments += part.arguments


def delta(answer: str, part: CallPart) -> dict[str, Any]:
    """One entry of a chunk's `delta.tool_calls`."""
    if part.name is None:
        return {"index": part.index, "function": {"arguments": part.arguments}}
    call = ToolCallText(_id(answer, part.index), part.name, part.arguments)
    return {"index": part.index, **call.whole()}


def _id(answer: str, index: int) -> str:
    """The same in a stream that is resumed."""
    return "call_" + hashlib.sha256(f"{answer}/{index}".encode()).hexdigest()[:24]
