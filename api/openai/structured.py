"""vLLM's ways to ask for structured output: `structured_outputs`, and the older `guided_…`."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api.errors import bad_request
from api.text import Text

MOST_CHARACTERS = 2**16

Choices = Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=256)]
Schema = dict[str, Any] | str


class StructuredOutputs(BaseModel):
    """One of them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    # Named otherwise: pydantic's own models have a method `json`.
    schema_: Schema | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = Field(None, description="In Lark, as llguidance reads it.")

    def wanted(self) -> list[tuple[str, str]]:
        found = []
        if self.schema_ is not None:
            found.append(("json_schema", _json(self.schema_)))
        if self.json_object:
            found.append(("json_schema", '{"type": "object"}'))
        if self.regex is not None:
            found.append(("regex", self.regex))
        if self.choice is not None:
            found.append(("lark", "start: " + " | ".join(map(json.dumps, self.choice))))
        if self.grammar is not None:
            found.append(("lark", self.grammar))
        return found


def only_one(found: list[tuple[str, str]], param: str) -> tuple[str, str] | None:
    """Raises ApiError where there are several, or it is too long."""
    if len(found) > 1:
        message = "One of json, json_object, regex, choice, grammar and response_format."
        raise bad_request(message, param)
    if found and len(found[0][1]) > MOST_CHARACTERS:
        raise bad_request(f"At most {MOST_CHARACTERS} characters.", param)
    return found[0] if found else None


def _json(schema: Schema) -> str:
    if not isinstance(schema, str):
        return json.dumps(schema)
    try:
        json.loads(schema)
    except (ValueError, RecursionError) as broken:
        raise bad_request(f"The schema is no JSON: {broken}", "structured_outputs") from broken
    return schema
