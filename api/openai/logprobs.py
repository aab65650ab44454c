"""Log-probabilities in the two shapes that OpenAI has for them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from loraplex.messages import Logprobs

# Token ids and what is known of them, in their order; nothing of a prompt's first.
Known = Sequence[tuple[int, Logprobs | None]]


def chat_logprobs(tokenizer: Tokenizer, known: Known) -> dict[str, Any]:
    """`logprobs` of a chat choice."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(tokenizer, token)
        return {"token": _text(raw), "logprob": logprob, "bytes": list(raw)}

    content = [
        entry(token, each.chosen) | {"top_logprobs": [entry(*top) for top in each.top]}
        for token, each in known
        if each is not None
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokenizer: Tokenizer, known: Known, offset: int) -> dict[str, Any]:
    """`logprobs` of a completion choice; `offset`: characters of the answer before these tokens."""
    tokens = [_text(token_bytes(tokenizer, token)) for token, _ in known]
    offsets = []
    for text in tokens:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": [each and each.chosen for _, each in known],
        "top_logprobs": [
            each
            and {_text(token_bytes(tokenizer, t)): logprob for t, logprob in each.top}
            | {text: each.chosen}
            for text, (_, each) in zip(tokens, known, strict=True)
        ],
        "text_offset": offsets,
    }


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
