"""Prompts as token ids."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from api.requests.models import ServedModel
from api.requests.prepare import prepare
from api.requests.request import GenerationRequest

WORDS = ["<s>", "a", "b", "c", "d"]


@pytest.fixture(scope="module")
def served() -> ServedModel:
    """A model whose prompts begin with <s>, as Llama's and Gemma's do."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return ServedModel(tokenizer, None, context_length=16)


@pytest.mark.parametrize(
    ("truncate", "ids"), [(None, [0, 1, 2, 3, 4]), (2, [0, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_a_prompt_that_is_cut_still_begins_as_it_must(
    served: ServedModel, truncate: int | None, ids: list[int]
) -> None:
    request = GenerationRequest("m", ["a b c d"], max_tokens=1, truncate=truncate)
    prompts, _ = prepare(served, request)
    assert prompts == [ids]
