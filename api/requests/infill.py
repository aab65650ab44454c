"""`suffix`: prompts for models that were trained to fill in the middle (arXiv:2207.14255)."""

from tokenizers import Tokenizer

from api.errors import bad_request

# Before the prefix, before the suffix, before the middle: as the families' tokenizers name them.
_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
)


def infill(tokenizer: Tokenizer, prefix: list[int], suffix: str) -> list[int]:
    """Token ids after which the model writes what stands between prefix and suffix.

    `prefix`: with the special tokens that a prompt of this model begins with. Raises ApiError when
    the model knows no such prompts.
    """
    known = ([tokenizer.token_to_id(mark) for mark in marks] for marks in _MARKS)
    marks = next(([m for m in each if m is not None] for each in known if None not in each), None)
    if marks is None:
        raise bad_request(
            "This base model's tokenizer has no tokens for filling in the middle: leave suffix "
            "out, or deploy a code model that has them.",
            "suffix",
            "unsupported_parameter",
        )
    opening = list(tokenizer.encode("", add_special_tokens=True).ids)
    start = len(opening) if prefix[: len(opening)] == opening else 0
    after = list(tokenizer.encode(suffix, add_special_tokens=False).ids)
    before_prefix, before_suffix, before_middle = marks
    body = [before_prefix, *prefix[start:], before_suffix, *after, before_middle]
    return prefix[:start] + body
