"""A linear layer whose rows don't depend on how many there are: tiles of one size for any batch.

cuBLAS chooses another kernel, and with it another order of additions, for another number of rows
(He et al., "Defeating Nondeterminism in LLM Inference", 2025). For the `deterministic` mode: slower
for prompts, whose tiles could be larger.
"""

import torch
import triton
import triton.language as tl

_BLOCK_M, _BLOCK_N, _BLOCK_K = 32, 64, 64


@triton.jit
def _linear_kernel(
    x, weight, bias, y, rows, x_row,
    N: tl.constexpr, K: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    at = m.to(tl.int64)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k0 in range(0, K, BLOCK_K):
        inside = (k0 + k) < K
        left = tl.load(
            x + at[:, None] * x_row + (k0 + k)[None, :],
            (m < rows)[:, None] & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            weight + n[None, :].to(tl.int64) * K + (k0 + k)[:, None],
            (n < N)[None, :] & inside[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + n, n < N, other=0.0).to(tl.float32)[None, :]
    mask = (m < rows)[:, None] & (n < N)[None, :]
    tl.store(y + at[:, None] * N + n[None, :], total.to(y.dtype.element_ty), mask)


class FixedTileLinear(torch.nn.Module):
    """x [..., in] → [..., out]. weight [out, in]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, k = self.weight.shape
        rows = x.reshape(-1, k)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        y = x.new_empty(*x.shape[:-1], size)
        grid = triton.cdiv(size, _BLOCK_N), triton.cdiv(len(rows), _BLOCK_M)
        bias = self.weight if self.bias is None else self.bias
        _linear_kernel[grid](
            *(rows, self.weight, bias, y, len(rows), rows.stride(0)),
            *(size, k, self.bias is not None, _BLOCK_M, _BLOCK_N, _BLOCK_K),
        )
        return y
