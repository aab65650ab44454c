"""`suffix`: the families' prompts for filling in the middle."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from api.errors import ApiError
from api.requests.infill import Infill, infill_marks

STARCODER = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]


def tokenizer(*special: str, bos: bool = False) -> Tokenizer:
    words = ["<s>", "def", "f", "return", *special]
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="f"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["<s>", *special])
    if bos:
        made.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return made


def infill(of: Tokenizer, prefix: list[int], suffix: str) -> list[int]:
    ids = of.encode(suffix, add_special_tokens=False).ids
    return Infill(infill_marks(of), ids).around(of, prefix)


def pieces(of: Tokenizer, ids: list[int]) -> list[str | None]:
    return [of.id_to_token(each) for each in ids]


def test_prefix_suffix_middle() -> None:
    starcoder = tokenizer(*STARCODER)
    ids = infill(starcoder, starcoder.encode("def f").ids, "return")
    expected = ["<fim_prefix>", "def", "f", "<fim_suffix>", "return", "<fim_middle>"]
    assert pieces(starcoder, ids) == expected


def test_what_comes_after_the_middle_ends_it() -> None:
    qwen = tokenizer("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")
    assert pieces(qwen, list(infill_marks(qwen).ends))[-1] == "<|fim_pad|>"


def test_what_every_prompt_begins_with_stays_first() -> None:
    deepseek = tokenizer("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", bos=True)
    ids = infill(deepseek, deepseek.encode("def").ids, "return")
    assert pieces(deepseek, ids)[:3] == ["<s>", "<｜fim▁begin｜>", "def"]
    from_ids = infill(deepseek, [1], "return")  # given as token ids, without it
    assert pieces(deepseek, from_ids)[:2] == ["<｜fim▁begin｜>", "def"]


def test_a_model_without_such_prompts_says_so() -> None:
    with pytest.raises(ApiError) as refused:
        infill(tokenizer(*STARCODER[:2]), [1], "return")
    assert (refused.value.status, refused.value.param) == (400, "suffix")
