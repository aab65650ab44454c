"""Log-probabilities in the two shapes that OpenAI has for them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from api.requests.generation import KnownToken

Known = Sequence[KnownToken]  # tokens of a text, in their order


def chat_logprobs(tokenizer: Tokenizer, known: Known) -> dict[str, Any]:
    """`logprobs` of a chat choice."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(tokenizer, token)
        return {"token": _text(raw), "logprob": logprob, "bytes": list(raw)}

    content = [
        entry(each.token, of_it.chosen) | {"top_logprobs": [entry(*top) for top in of_it.top]}
        for each in known
        if (of_it := each.logprobs) is not None
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokenizer: Tokenizer, known: Known) -> dict[str, Any]:
    """`logprobs` of a completion choice."""
    tokens = [_text(token_bytes(tokenizer, each.token)) for each in known]
    return {
        "tokens": tokens,
        "token_logprobs": [each.logprobs and each.logprobs.chosen for each in known],
        "top_logprobs": [
            each.logprobs
            and {_text(token_bytes(tokenizer, t)): logprob for t, logprob in each.logprobs.top}
            | {text: each.logprobs.chosen}
            for text, each in zip(tokens, known, strict=True)
        ],
        "text_offset": [each.offset for each in known],
    }


@lru_cache(maxsize=2**17)
def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """What a token adds to the text: it may be a part of a character only."""
    piece = tokenizer.id_to_token(token) or ""
    if len(piece) == 6 and piece.startswith("<0x"):  # SentencePiece's byte fallback
        return bytes([int(piece[3:5], 16)])
    text = tokenizer.decode([token], skip_special_tokens=False)
    table = _byte_level()
    if "\N{REPLACEMENT CHARACTER}" in text and all(c in table for c in piece):
        return bytes(table[c] for c in piece)
    if piece.startswith("▁") and not text.startswith(" "):  # decoders drop the first space
        text = " " + text
    return text.encode()


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


@lru_cache(maxsize=1)
def _byte_level() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones are themselves, the others follow from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in printable)
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
