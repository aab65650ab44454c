"""Rows of a dataset as questions: what is asked, and what the answer should be. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True, slots=True)
class Question:
    endpoint: str
    asked: dict[str, Any]  # `messages`, or `prompt`
    expected: str


def question(row: Mapping[str, Any], *, as_chat: bool) -> Question | None:
    """None: a text has neither."""
    if "messages" in row:
        *asked, answer = row["messages"]
        return Question(CHAT, {"messages": asked}, answer["content"])
    if "completion" not in row:
        return None
    if as_chat:
        asked = [{"role": "user", "content": row["prompt"]}]
        return Question(CHAT, {"messages": asked}, row["completion"])
    return Question(COMPLETION, {"prompt": row["prompt"]}, row["completion"])


def answer_of(body: Mapping[str, Any]) -> str:
    """The text of a chat completion, or of a completion."""
    choice = body["choices"][0]
    found = choice["message"]["content"] if "message" in choice else choice["text"]
    return str(found or "")
