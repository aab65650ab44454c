"""What an engine may use in place of torch's operations on one kind of machine.

`kernels.cpu.family` and `kernels.gpu.family` each declare theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Operation = Callable[..., torch.Tensor]


@dataclass(frozen=True, slots=True)
class KernelFamily:
    """Signatures are those of `kernels.gpu`'s functions of the same names."""

    store_kv: Callable[..., None]
    decode_attention: Operation
    rms_norm: Operation
    silu_mul: Operation
    rope_: Operation
    prefill_attention: Callable[..., None] | None = None  # None: torch's
    prefill_tiles: Callable[..., Any] | None = None
    sample_tokens: Operation | None = None
