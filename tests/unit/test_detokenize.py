"""Text out of tokens: whole characters, no stop string or part of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from api.requests.detokenize import Detokenizer


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    """One token a byte: every multi-byte character is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_pieces_join_to_the_text(bytes_tokenizer: Tokenizer, text: str) -> None:
    decoder = Detokenizer(bytes_tokenizer, [])
    pieces = [decoder.feed(token) for token in bytes_tokenizer.encode(text).ids]
    assert "".join(pieces) + decoder.flush() == text
    assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in text)


@given(
    text=st.text("abn", max_size=30),
    stops=st.lists(st.text("abn", min_size=1, max_size=4), max_size=3),
)
def test_nothing_of_a_stop_string_is_shown(
    bytes_tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    decoder = Detokenizer(bytes_tokenizer, stops)
    shown = "".join(decoder.feed(t) for t in bytes_tokenizer.encode(text).ids) + decoder.flush()
    assert not any(stop in shown for stop in stops)
    assert text.startswith(shown)
    assert decoder.stopped == any(stop in text for stop in stops)
    if not decoder.stopped:
        assert shown == text


def test_a_stop_string_that_is_kept_ends_with_its_token(bytes_tokenizer: Tokenizer) -> None:
    decoder = Detokenizer(bytes_tokenizer, ["lo, w", "zz"], keep_stop=True)
    shown = ""
    for token in bytes_tokenizer.encode("hello, world").ids:
        shown += decoder.feed(token)
    assert decoder.stopped and shown == "hello, w"
