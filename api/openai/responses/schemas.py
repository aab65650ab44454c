"""Bodies of /v1/responses: text only. What isn't honoured is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.errors import bad_request
from api.openai.schemas import (
    MAX_TOKENS,
    JsonObjectFormat,
    TextFormat,
    neutral,
    schema_grammar,
)
from api.text import Text, storable


class InputPart(BaseModel):
    model_config = ConfigDict(extra="ignore")  # outputs come back as inputs, with annotations
    type: Literal["input_text", "output_text", "text"]
    text: str


class InputMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")  # id and status, where an output comes back
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]

    def plain(self) -> dict[str, str]:
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class SchemaFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["json_schema"]
    name: Text = Field(min_length=1, max_length=64)
    schema_: dict[str, Any] = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = None  # the output always matches the schema

    def grammar(self) -> tuple[str, str]:
        """Raises ApiError for a schema that is too long."""
        if not storable(self.schema_):
            raise bad_request("The schema has a number or a text that JSON has not.", "text.format")
        return schema_grammar(self.schema_, "text.format")


class TextOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: TextFormat | JsonObjectFormat | SchemaFormat = Field(
        TextFormat(type="text"), discriminator="type"
    )
    verbosity: Annotated[Any, neutral("medium")] = None


class ResponseCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: Text = Field(max_length=512)
    input: Text | list[InputMessage] = Field(min_length=1)
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    text: TextOptions = TextOptions()
    stream: bool | None = False
    background: bool | None = False
    store: bool | None = True
    previous_response_id: str | None = Field(None, max_length=128)
    metadata: dict[Text, Text] | None = Field(None, max_length=16)
    user: Text | None = Field(None, max_length=512)
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    tools: Annotated[Any, neutral([])] = None
    tool_choice: Annotated[Any, neutral("none", "auto")] = None
    parallel_tool_calls: bool | None = None
    truncation: Annotated[Any, neutral("disabled")] = None
    service_tier: Annotated[Any, neutral("auto", "default")] = None
    include: Annotated[Any, neutral([])] = None

    def messages(self) -> list[dict[str, str]]:
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return [message.plain() for message in self.input]
