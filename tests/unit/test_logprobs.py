"""A token's own bytes, also where it is a part of a character only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from api.openai.logprobs import token_bytes


def byte_level() -> Tokenizer:
    """One token a byte, as GPT-2 writes them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(max_size=20))
def test_the_tokens_of_a_text_give_its_bytes(text: str) -> None:
    tokenizer = byte_level()
    raw = b"".join(token_bytes(tokenizer, token) for token in tokenizer.encode(text).ids)
    assert raw == text.encode()


@pytest.mark.parametrize(("piece", "raw"), [("<0xF0>", b"\xf0"), ("▁the", b" the"), ("on", b"on")])
def test_sentencepiece(piece: str, raw: bytes) -> None:
    tokenizer = Tokenizer(models.WordLevel({piece: 0}, unk_token=piece))
    tokenizer.decoder = decoders.Metaspace()
    assert token_bytes(tokenizer, 0) == raw
