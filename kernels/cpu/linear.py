"""Linear layers from packed panels: y = x · Wᵀ + b in float32, W stored as float32 or bfloat16."""

import torch

from kernels.cpu.build import library
from kernels.cpu.program import call

FP32, BF16 = 0, 1


def kind_of(dtype: torch.dtype) -> int:
    """How panels of this dtype are called in C. Raises KeyError for others."""
    return {torch.float32: FP32, torch.bfloat16: BF16}[dtype]


def pack(weight: torch.Tensor, dtype: torch.dtype, threads: int = 0) -> torch.Tensor:
    """[n, k] of any floating dtype → its panels, of `dtype`: a flat tensor of n (padded) · k.

    `threads`: 0 for all; 1 beside a running batch.
    """
    return _pack(weight, dtype, threads)[0]


def _pack(weight: torch.Tensor, dtype: torch.dtype, threads: int) -> tuple[torch.Tensor, bool]:
    """The panels, and whether they hold the weight exactly."""
    lib = library()
    assert lib is not None
    n, k = weight.shape
    columns = lib.lpx_panel_columns()
    panels = torch.empty(-(-n // columns) * columns * k, dtype=dtype)
    source = weight.detach().to(torch.float32).contiguous()
    kind = kind_of(dtype)
    exact = lib.lpx_pack(source.data_ptr(), n, k, kind, panels.data_ptr(), threads)
    return panels, bool(exact)


class PackedLinear(torch.nn.Module):
    """In place of a Linear or Conv1D on the CPU. x: float32 [..., k] → [..., n].

    A row's result doesn't depend on the other rows of the batch (k is summed in one order).
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype | None = None
    ) -> None:
        """`dtype` of the panels; None: bfloat16 if that loses nothing, else float32."""
        super().__init__()
        lib = library()
        assert lib is not None
        self.out_features, self.in_features = weight.shape
        self._panels, exact = _pack(weight, dtype or torch.bfloat16, 0)
        if dtype is None and not exact:
            self._panels = pack(weight, torch.float32)
        self._kind = kind_of(self._panels.dtype)
        self._bias = None if bias is None else _padded(bias, lib.lpx_panel_columns())
        self._bias_at = None if self._bias is None else self._bias.data_ptr()
        self._panels_at = self._panels.data_ptr()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._run("lpx_linear", x)

    def adapted(self, x: torch.Tensor, *adapters: int) -> torch.Tensor:
        """The same plus a step's adapters; `adapters` is what `CpuLora` tells of them."""
        return self._run("lpx_adapted_linear", x, *adapters)

    def _run(self, kernel: str, x: torch.Tensor, *more: int) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features)
        if not rows.is_contiguous():
            rows = rows.contiguous()
        y = rows.new_empty(rows.shape[0], self.out_features)
        call(
            kernel,
            *(rows.data_ptr(), self._panels_at, self._bias_at, y.data_ptr(), rows.shape[0]),
            *(self.in_features, self.out_features, self._kind, *more),
        )
        return y.view(*x.shape[:-1], self.out_features)


def _padded(bias: torch.Tensor, columns: int) -> torch.Tensor:
    padded = torch.zeros(-(-len(bias) // columns) * columns)
    padded[: len(bias)] = bias
    return padded
