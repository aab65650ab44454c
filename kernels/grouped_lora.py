"""Grouped LoRA: rows of one packed batch, sorted into segments, each with its own A and B.

This is the torch form: it runs on every device and is the reference that a Triton kernel of this
family is compared with. The segments' ranks may differ; rows outside all segments are the base
model's and cost nothing. (Punica, arXiv:2310.18547, calls the operation SGMV.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Segment(NamedTuple):
    """Rows `start:end` of the batch go through one adapter."""

    start: int
    end: int
    a: torch.Tensor  # [rank, in]
    b: torch.Tensor  # [out, rank], scaling folded in


def add_grouped_lora(y: torch.Tensor, x: torch.Tensor, segments: Sequence[Segment]) -> None:
    """y[start:end] += (x[start:end] @ A.T) @ B.T for each segment, in place.

    x: [tokens, in]; y: [tokens, out], contiguous rows.
    """
    for start, end, a, b in segments:
        y[start:end].addmm_(torch.mm(x[start:end], a.t()), b.t())
