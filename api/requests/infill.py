"""`suffix`: prompts for models that were trained to fill in the middle (arXiv:2207.14255)."""

from dataclasses import dataclass

from tokenizers import Tokenizer

from api.errors import bad_request

# Before the prefix, before the suffix, before the middle: as the families' tokenizers name them.
# Code Llama isn't here: its normalizer would put a space before the suffix.
_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
)
# What they write after the middle, beside the end of text.
_ENDS = (
    *("<|fim_pad|>", "<|file_separator|>", "<|file_sep|>", "<|repo_name|>", "<fim_pad>"),
    *("<fim-pad>", "<file_sep>", "<repo_name>", "<|cursor|>"),
)


@dataclass(frozen=True, slots=True)
class Marks:
    """Token ids of a family."""

    prefix: int
    suffix: int
    middle: int
    ends: tuple[int, ...]  # of the answer


def infill_marks(tokenizer: Tokenizer) -> Marks:
    """Raises ApiError when the model knows no such prompts."""
    known = ([tokenizer.token_to_id(mark) for mark in marks] for marks in _MARKS)
    marks = next(([m for m in each if m is not None] for each in known if None not in each), None)
    if marks is None:
        raise bad_request(
            "This base model's tokenizer has no tokens for filling in the middle: leave suffix "
            "out, or deploy a code model that has them.",
            "suffix",
            "unsupported_parameter",
        )
    ends = [tokenizer.token_to_id(name) for name in _ENDS]
    prefix, suffix, middle = marks
    return Marks(prefix, suffix, middle, (*marks, *(end for end in ends if end is not None)))


@dataclass(frozen=True, slots=True)
class Infill:
    marks: Marks
    suffix: list[int]

    def around(self, tokenizer: Tokenizer, prefix: list[int]) -> list[int]:
        """Token ids after which the model writes what stands between prefix and suffix.

        `prefix`: with the special tokens that a prompt of this model begins with, or without.
        """
        opening = list(tokenizer.encode("", add_special_tokens=True).ids)
        start = len(opening) if prefix[: len(opening)] == opening else 0
        body = [self.marks.prefix, *prefix[start:], self.marks.suffix, *self.suffix]
        return [*prefix[:start], *body, self.marks.middle]
