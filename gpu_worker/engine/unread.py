"""Tokens that were sampled and are still on the device: the next step may use them unseen."""

from dataclasses import dataclass

import torch

from gpu_worker.engine.schedule import Sequence


@dataclass(frozen=True, slots=True)
class Unread:
    tokens: torch.Tensor  # int64 [rows]
    row_of: dict[Sequence, int]

    def fill(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """ids, with the token of row `rows[i]` where that is not negative."""
        return torch.where(rows >= 0, self.tokens[rows.long().clamp(min=0)], ids)
