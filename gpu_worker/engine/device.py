"""What differs between machines: how linear layers, adapters and the KV cache are stored.

- A CPU with the C kernels and float32 arithmetic: weights are read at their stored size. `auto` on
  hardware that doesn't multiply bfloat16 means this, with bfloat16 adapters and KV cache where the
  checkpoint is bfloat16; `float32` keeps those in float32 (base weights lose nothing either way).
- Another CPU: oneDNN's prepacked weights.
- A GPU: torch's own linear layers, the rest by Triton kernels. `interpreter` runs those on the CPU,
  slowly, where TRITON_INTERPRET=1 was set before they are imported: for tests.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from gpu_worker.engine.lora.linears import LinearGroup
from gpu_worker.engine.request import ModelRefused
from kernels.cpu.build import library
from kernels.cpu.family import CPU
from kernels.cpu.linear import PackedLinear
from kernels.cpu.lora import CpuLora
from kernels.family import KernelFamily
from kernels.grouped_lora import LoraKernel, TorchLora

INTERPRETER = "interpreter"
_DTYPES = ("auto", "float32", "bfloat16", "float16")


class Machine:
    """One device and the dtypes that it computes and stores in."""

    def __init__(
        self, device: str, dtype: str, checkpoint_dtype: torch.dtype, *, deterministic: bool = False
    ) -> None:
        """`device`: auto, cpu, cuda…, interpreter; `dtype`: auto or a torch dtype's name.

        Raises ModelRefused when what is asked for can't be had here.
        """
        if dtype not in _DTYPES:
            raise ModelRefused(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not re.fullmatch(rf"cpu|cuda(:\d+)?|{INTERPRETER}", str(device)):
            raise ModelRefused(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")
        if device == INTERPRETER and os.environ.get("TRITON_INTERPRET") != "1":
            raise ModelRefused("device interpreter: set TRITON_INTERPRET=1 before Python starts")
        interpreted = device == INTERPRETER
        self.device = torch.device("cpu" if interpreted else device)
        if self.device.type == "cuda":
            self._use()
        if dtype == "auto":
            native = self.device.type == "cuda" or (
                torch.cpu._is_avx512_bf16_supported() and not deterministic
            )
            self.dtype = torch.bfloat16 if native else torch.float32
        else:
            self.dtype = getattr(torch, dtype)
        on_cpu = self.device.type == "cpu" and not interpreted
        self.triton = interpreted or (self.device.type == "cuda" and _has_triton())
        self.compiled = on_cpu and self.dtype == torch.float32 and library() is not None
        halves = self.compiled and dtype == "auto" and checkpoint_dtype == torch.bfloat16
        self.stored = torch.bfloat16 if halves else self.dtype  # KV cache and adapters
        self.deterministic = deterministic
        self.unpacked: list[OneDnnLinear] = []  # layers that are faster once they are packed
        if deterministic and self.kernels is None:
            raise ModelRefused(
                "deterministic needs kernels of ours: on a CPU float32 and a C compiler, on a GPU "
                "Triton"
            )

    def _use(self) -> None:
        """Make the GPU this thread's: Triton and captured graphs take the current one."""
        count = torch.cuda.device_count()
        if (self.device.index or 0) >= count:
            reason = f"torch {torch.__version__} sees {count} GPUs"
            raise ModelRefused(f"device {self.device} can't be used: {reason}")
        torch.cuda.set_device(self.device)

    def kv_cache_bytes(self, gib: float | None, reserved: int) -> int:
        """`gib`, or by default 1 GiB on a CPU, and on a GPU what is free but for `reserved` bytes
        and what steps and their graphs take: a tenth, at least 2 GiB."""
        if gib is not None or self.device.type != "cuda":
            return int((1.0 if gib is None else gib) * 2**30)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(0, free - max(free // 10, 2 * 2**30) - reserved)

    @property
    def kernels(self) -> KernelFamily | None:
        """In place of torch's operations."""
        if self.triton:
            from kernels.gpu.family import GPU  # Triton isn't everywhere

            return GPU
        return CPU if self.compiled else None

    def linear(self, modules: Sequence[nn.Module]) -> nn.Module:
        """One layer that computes all of `modules` (Linear or Conv1D) side by side."""
        if self._prepacks and not self.compiled:
            self.unpacked.append(OneDnnLinear([(_weight(m), _bias(m)) for m in modules]))
            return self.unpacked[-1]
        weight = _joined([_weight(m) for m in modules])
        bias = None if modules[0].bias is None else _joined([_bias(m) for m in modules])
        if self.compiled:
            return PackedLinear(weight, bias)
        if self.deterministic:
            from kernels.gpu.linear import FixedTileLinear

            return FixedTileLinear(weight, bias)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, "meta")
        layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias, requires_grad=False)
        return layer

    @property
    def _prepacks(self) -> bool:
        """Whether oneDNN multiplies this dtype on this CPU."""
        if self.device.type != "cpu" or self.triton or not torch.backends.mkldnn.is_available():
            return False
        bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported
        return self.dtype == torch.float32 or (self.dtype == torch.bfloat16 and bf16())

    def lora(
        self, groups: Sequence[LinearGroup], *, slots: int, max_rows: int
    ) -> LoraKernel[Any, Any]:
        """The kernel that adds adapters to these layers; `max_rows` of any step."""
        shapes = [(group.in_features, group.widths) for group in groups]
        if self.triton:
            from kernels.gpu.lora import GpuLora

            return GpuLora(
                *(shapes, self.dtype, self.device),
                slots=slots,
                max_rows=max_rows,
                fixed_tiles=self.deterministic,
            )
        if self.compiled:
            return CpuLora(shapes, self.stored)
        return TorchLora(shapes, self.dtype, self.device)


class OneDnnLinear(nn.Module):
    """A Linear whose weight is in oneDNN's layout once, instead of at every call.

    Until `pack` it is torch's own, of the checkpoint's tensors as they lie: a little slower, but
    ready at once.
    """

    def __init__(self, parts: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
        """`parts`: weight [out, in] and bias of layers whose outputs come side by side."""
        super().__init__()
        self.out_features = sum(weight.shape[0] for weight, _ in parts)
        self._parts = list(parts)
        self._packed: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None

    def pack(self) -> None:
        """Lay the weight out for oneDNN, once, and forget the checkpoint's."""
        if self._packed is not None:
            return
        rows = 32  # the layout is chosen for a batch of about this size
        weight = _joined([weight for weight, _ in self._parts]).contiguous()
        biases = [bias for _, bias in self._parts if bias is not None]
        self._bias = _joined(biases) if biases else None
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._parts = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is None:
            return _joined([F.linear(x, weight, bias) for weight, bias in self._parts], -1)
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self._bias, "none", [], ""
        )
        return y


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _joined(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _bias(module: nn.Module) -> Any:
    return None if module.bias is None else module.bias.detach()  # type: ignore[operator]


def _weight(module: nn.Module) -> torch.Tensor:
    """[out, in], whatever the module keeps."""
    weight: torch.Tensor = module.weight.detach()  # type: ignore[assignment, operator]
    return weight.t() if isinstance(module, Conv1D) else weight
