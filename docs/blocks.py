"""The fenced blocks of a page: what readers type, and what they see."""

import re
from dataclasses import dataclass

_FENCED = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in _FENCED.findall(page)]
