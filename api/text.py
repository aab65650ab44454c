"""Text from outside that can be encoded and stored."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as broken:  # JSON can spell half of a surrogate pair
        raise ValueError("holds half of a surrogate pair") from broken
    if "\0" in text:  # nor can a database's text hold it
        raise ValueError("holds a NUL character")
    return text


Text = Annotated[str, AfterValidator(_storable)]


def storable(value: Any) -> bool:
    """Can it be written as JSON, and stored? Not what NaN, or half of a surrogate pair is in."""
    try:
        _storable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError):
        return False
    return True
