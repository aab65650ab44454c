"""Tools in chat requests, and the calls of them in messages."""

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.errors import bad_request
from api.requests.tool_families import ToolUse
from api.text import Text

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 128
_MOST_CHARACTERS = 2**17  # of all of them


class Function(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema
    strict: bool | None = None  # calls always match


class Tool(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class NamedTool(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


def short_id(call: str) -> str:
    """Mistral's templates want nine letters and digits."""
    return hashlib.sha256(call.encode()).hexdigest()[:9]


class FunctionCall(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    arguments: str  # JSON


class ToolCall(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: Text = Field(max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall

    def plain(self) -> dict[str, Any]:
        """As chat templates take it. Raises ApiError."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError) as broken:
            message = f"The arguments of the call {self.id!r} are no JSON: {broken}."
            raise bad_request(message, "messages") from broken
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": short_id(self.id), "type": "function", "function": function}


def tool_use(
    tools: list[Tool] | None, choice: ToolChoice | None, parallel: bool | None
) -> ToolUse | None:
    """None: the model isn't told of any. Raises ApiError."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise bad_request("tool_choice needs tools.", "tool_choice")
        return None
    names = [tool.function.name for tool in tools]
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        message = f"{wrong[0]!r}: names are of 1 to 64 letters, digits, '_' and '-'."
        raise bad_request(message, "tools")
    if len({*names}) < len(names):
        raise bad_request("Two functions have the same name.", "tools")
    functions = [tool.function.model_dump(exclude_none=True, exclude={"strict"}) for tool in tools]
    if len(tools) > _MOST or len(json.dumps(functions)) > _MOST_CHARACTERS:
        message = f"At most {_MOST} tools, of {_MOST_CHARACTERS} characters together."
        raise bad_request(message, "tools")
    if choice == "none":
        return None
    only = choice.function.name if isinstance(choice, NamedTool) else None
    if only is not None and only not in names:
        raise bad_request(f"There is no function {only!r} among the tools.", "tool_choice")
    return ToolUse(
        functions,
        required=choice == "required",
        only=only,
        parallel=parallel is not False and only is None,
    )
