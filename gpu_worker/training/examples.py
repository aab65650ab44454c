"""Rows of training data → token ids and labels: the loss is of what the model is to say.

A row has `messages` (rendered as they are for serving; each answer of the assistant counts),
`prompt` and `completion`, or `text`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Part = tuple[str, bool, bool]
IGNORED = -100  # label of a token that has no part in the loss


@dataclass(frozen=True, slots=True)
class Example:
    ids: list[int]
    labels: list[int]


class Tokenized(torch.utils.data.Dataset[Example]):
    def __init__(self, file: Path, tokenizer: Any, max_length: int) -> None:
        rows = (json.loads(line) for line in file.read_text().splitlines() if line.strip())
        found = (example(row, tokenizer, max_length) for row in rows)
        self.examples = [e for e in found if any(label != IGNORED for label in e.labels)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def example(row: dict[str, Any], tokenizer: Any, max_length: int) -> Example:
    ids: list[int] = []
    labels: list[int] = []
    for text, special, counts in _parts(row, tokenizer):
        found = tokenizer(text, add_special_tokens=special)["input_ids"]
        ids += found
        labels += found if counts else [IGNORED] * len(found)
    return Example(ids[:max_length], labels[:max_length])


def _parts(row: dict[str, Any], tokenizer: Any) -> Iterator[Part]:
    """Texts, whether the tokenizer's own special tokens come with them, and whether they count."""
    end = tokenizer.eos_token or ""
    if "messages" in row:
        yield from _chat(row["messages"], tokenizer)
    elif "completion" in row:
        yield row["prompt"], True, False
        yield row["completion"] + end, False, True
    else:
        yield row["text"], True, True
        yield end, False, True


def _chat(messages: Sequence[dict[str, Any]], tokenizer: Any) -> list[Part]:
    """Between two answers: what a template writes up to where the model begins."""
    parts: list[Part] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(
            messages[:index], tokenize=False, add_generation_prompt=True
        )
        after = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
        if not before.startswith(done) or not after.startswith(before):
            # A template that rewrites what came before: only the last answer can be told apart.
            return _last(messages, tokenizer)
        said = after[len(before) :].rstrip("\n")
        parts += [(before[len(done) :], False, False), (said, False, True)]
        done = before + said
    return parts


def _last(messages: Sequence[dict[str, Any]], tokenizer: Any) -> list[Part]:
    before = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    said = messages[-1]["content"] + (tokenizer.eos_token or "")
    return [(before, False, False), (said, False, True)]


def pack(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
    """One after another, [1, all]: positions that begin anew tell transformers' attention where
    each begins, so that it sees itself only. The first token of each is nobody's to foretell."""
    ids = [i for each in batch for i in each.ids]
    labels = [label for each in batch for label in (IGNORED, *each.labels[1:])]
    positions = [position for each in batch for position in range(len(each.ids))]
    rows = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.tensor([row]) for name, row in rows.items()}


def collate(batch: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Padded on the right: [rows, longest]."""
    width = max(len(each.ids) for each in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), IGNORED)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for row, each in enumerate(batch):
        length = len(each.ids)
        ids[row, :length] = torch.tensor(each.ids)
        labels[row, :length] = torch.tensor(each.labels)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
