"""What the API must know of a base model to prepare requests: tokenizer, chat template, bounds."""

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from api.requests.template import ChatTemplate
from api.requests.tool_families import ToolFamily, family_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    tokenizer: Tokenizer
    template: ChatTemplate | None
    context_length: int
    special: frozenset[int] = frozenset()  # tokens that are no text
    tools: ToolFamily | None = None  # how it calls them


class ServedModels:
    """Loaded from the model store's folders, kept by path."""

    def __init__(self) -> None:
        self.load = lru_cache(maxsize=16)(_load)


class BrokenModel(Exception):
    """A base model whose files can't be read; the text says which."""


def _load(folder: Path) -> ServedModel:
    try:
        return _read(folder)
    except Exception as broken:  # what `tokenizers` raises has no class of its own
        raise BrokenModel(f"The base model in {folder} can't be read: {broken}") from broken


def _read(folder: Path) -> ServedModel:
    config = _json(folder / "config.json")
    text_config = config.get("text_config") or config
    length = text_config.get("max_position_embeddings") or text_config.get("n_positions") or 2**20
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    template = _template(folder)
    return ServedModel(
        tokenizer=tokenizer,
        template=template,
        tools=family_of(template.source) if template else None,
        context_length=int(length),
        special=frozenset(token for token, about in added.items() if about.special),
    )


def _template(folder: Path) -> ChatTemplate | None:
    settings = _json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text() if file.is_file() else settings.get("chat_template")
    if not isinstance(source, str):
        return None
    tokens = {
        name: token.get("content", "") if isinstance(token, dict) else str(token)
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (token := settings.get(name)) is not None
    }
    try:
        return ChatTemplate(source, tokens)
    except TemplateError as broken:
        log.warning("%s: the chat template doesn't compile: %s", folder, broken)
        return None


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return content
