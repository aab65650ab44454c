"""Request bodies of the OpenAI surface. What isn't honoured is refused by name, never ignored.

A parameter that is listed as `Unset` is accepted at its neutral value only.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.errors import bad_request
from api.openai.structured import Choices, Schema, StructuredOutputs, only_one
from api.openai.tool_schemas import Tool, ToolCall, ToolChoice, short_id, tool_use
from api.requests.tool_families import ToolUse
from api.text import Text

MAX_TOKENS = 2**20
MAX_SCHEMA = 2**16
MAX_ANSWERS = 128  # prompts times n (or best_of)


def neutral(*allowed: object) -> BeforeValidator:
    def check(value: object) -> object:
        if value is not None and value not in allowed:
            raise ValueError("this value isn't supported yet; leave the parameter out")
        return value

    return BeforeValidator(check)


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=128)
    tool_call_id: Text | None = Field(None, max_length=256)
    # As answers have them, which come back as they are.
    refusal: None = None
    annotations: Annotated[Any, neutral([])] = None
    audio: None = None
    function_call: None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates take it; `developer` is the newer name of `system`. Raises ApiError."""
        text = self.content
        if text is None and not self.tool_calls:
            raise bad_request(f"A message of {self.role} has no content.", "messages")
        if (self.tool_calls and self.role != "assistant") or (
            (self.tool_call_id is not None) != (self.role == "tool")
        ):
            message = (
                "tool_calls are the assistant's; tool_call_id is of role tool, which needs it."
            )
            raise bad_request(message, "messages")
        if not isinstance(text, str):
            text = "".join(part.text for part in text or ())
        role = "system" if self.role == "developer" else self.role
        plain: dict[str, Any] = {"role": role, "content": text}
        if self.tool_calls:
            plain["tool_calls"] = [call.plain() for call in self.tool_calls]
        if self.role == "tool":
            plain |= {"tool_call_id": short_id(self.tool_call_id or ""), "name": self.name or ""}
        return plain


class TextFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]

    def grammar(self) -> None:
        return None


class JsonObjectFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["json_object"]

    def grammar(self) -> tuple[str, str]:
        return ("json_schema", '{"type": "object"}')


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    # Named otherwise: pydantic's own models have a method `schema`.
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None  # the output always matches the schema


def schema_grammar(schema: dict[str, Any], param: str) -> tuple[str, str]:
    """Raises ApiError for a schema that is too long."""
    source = json.dumps(schema)
    if len(source) > MAX_SCHEMA:
        raise bad_request(f"The schema has over {MAX_SCHEMA} characters.", param)
    return ("json_schema", source)


class JsonSchemaFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["json_schema"]
    json_schema: JsonSchema

    def grammar(self) -> tuple[str, str]:
        """Raises ApiError for a schema that is too long."""
        return schema_grammar(self.json_schema.schema_, "response_format.json_schema.schema")


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class Common(BaseModel):
    """Shared by chat and completions."""

    model_config = ConfigDict(extra="forbid")

    model: Text = Field(max_length=512)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[TokenId, Bias] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Text | list[Text] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # vLLM's extras
    top_k: int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    ignore_eos: bool | None = False
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    stop_token_ids: list[TokenId] | None = Field(None, max_length=64)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None
    skip_special_tokens: Annotated[Any, neutral(True)] = None
    return_token_ids: Annotated[Any, neutral(False)] = None
    priority: Annotated[Any, neutral(0)] = None
    # accepted without effect on the answer, as their meaning allows
    user: Text | None = Field(None, description="Gets the same version of an alias each time.")
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)

    @property
    def stops(self) -> list[str]:
        """At most four non-empty strings. Raises ApiError."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > 4 or any(not s or len(s) > 256 for s in stops):
            raise bad_request("stop: up to four strings of 1 to 256 characters.", "stop")
        return stops

    def sampling(self) -> dict[str, Any]:
        """The fields that GenerationRequest takes as they are."""
        return {
            "n": self.n or 1,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p or 1.0,
            "top_k": max(0, self.top_k or 0),
            "min_p": self.min_p or 0.0,
            "seed": None if self.seed is None else self.seed % 2**63,
            "stop": self.stops,
            "ignore_eos": bool(self.ignore_eos),
            "min_tokens": self.min_tokens or 0,
            "stop_ids": self.stop_token_ids or [],
            "repetition_penalty": self.repetition_penalty or 1.0,
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "logit_bias": self.logit_bias or {},
            "user": self.user or "",
        }

    def structure(self, response_format: tuple[str, str] | None = None) -> tuple[str, str] | None:
        """Kind and source of the grammar that the answer must match. Raises ApiError."""
        older = StructuredOutputs(
            json=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        ).wanted()
        newer = self.structured_outputs.wanted() if self.structured_outputs else []
        given = [response_format] if response_format else []
        return only_one(given + newer + older, "structured_outputs" if newer else "guided_json")

    @property
    def include_usage(self) -> bool:
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options is for streams: set stream.", "stream_options")
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Common):
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    metadata: dict[str, str] | None = None
    store: Annotated[Any, neutral(False)] = None
    safety_identifier: str | None = None
    service_tier: Annotated[Any, neutral("auto", "default")] = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = Field(None, discriminator="type")
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: Annotated[Any, neutral(True)] = None
    chat_template_kwargs: dict[Text, Any] | None = Field(None, max_length=32)

    @property
    def arguments_for_template(self) -> dict[str, Any]:
        """Raises ApiError."""
        given: dict[str, Any] = self.chat_template_kwargs or {}
        if len(repr(given)) > MAX_SCHEMA:
            message = f"At most {MAX_SCHEMA} characters."
            raise bad_request(message, "chat_template_kwargs")
        return given

    @property
    def tool_use(self) -> ToolUse | None:
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)

    @property
    def alternatives(self) -> int | None:
        """How many to report beside each token; None: no log-probabilities. Raises ApiError."""
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs needs logprobs: true.", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Common):
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(16, ge=0, le=MAX_TOKENS)
    echo: bool | None = False
    suffix: Text | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    best_of: int | None = Field(None, ge=1, le=MAX_ANSWERS)

    @property
    def answers(self) -> int:
        """To return for each prompt."""
        return self.n or 1

    @property
    def candidates(self) -> int:
        """To generate for each prompt. Raises ApiError."""
        best_of = self.best_of or self.answers
        if best_of < self.answers:
            raise bad_request("best_of must be at least n.", "best_of")
        if self.stream and best_of > self.answers:
            raise bad_request("The best can't be known in a stream: best_of must be n.", "best_of")
        if best_of * len(self.prompts()) > MAX_ANSWERS:
            reason = f"Prompts times n (or best_of): at most {MAX_ANSWERS} a request."
            raise bad_request(reason, "n" if self.best_of is None else "best_of")
        if self.max_tokens == 0 and not self.echo:
            raise bad_request("Of 0 tokens there is nothing to show but an echo.", "max_tokens")
        if self.echo and self.suffix:
            raise bad_request("An answer between prompt and suffix has no echo.", "echo")
        return best_of

    def prompts(self) -> list[str | list[int]]:
        """Each a text or token ids; empty only before a suffix. Raises ApiError."""
        prompt = self.prompt
        if prompt == "" and self.suffix:
            return [""]
        if not prompt:
            raise bad_request("The prompt is empty.", "prompt")
        if isinstance(prompt, str):
            return [prompt]
        if all(isinstance(token, int) for token in prompt):
            return [[token for token in prompt if isinstance(token, int)]]
        prompts = [each for each in prompt if not isinstance(each, int)]
        if not all(prompts):
            raise bad_request("A prompt is empty.", "prompt")
        return prompts
