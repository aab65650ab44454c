"""Text from outside that can be encoded and stored."""

from typing import Annotated

from pydantic import AfterValidator


def _storable(text: str) -> str:
    text.encode()  # JSON can spell half a surrogate pair: a UnicodeEncodeError is a ValueError
    if "\0" in text:  # nor can a database's text hold it
        raise ValueError("holds a NUL character")
    return text


Text = Annotated[str, AfterValidator(_storable)]
