"""Choose tokens on the device: greedy, or by the inverse distribution function of what is left.

Thresholds of top-k and top-p are found exactly, by bisection over the bit patterns of the
probabilities (positive floats sort like integers), so that nothing is sorted. A row reads its own
logits only.
"""

import torch
import triton
import triton.language as tl

_BLOCK = 2048


@triton.jit
def _weights(row, at, V: tl.constexpr, highest, heat):
    """exp((logit - highest) / temperature): 1 for the likeliest token, 0 outside."""
    logits = tl.load(row + at, at < V, other=float("-inf")).to(tl.float32)
    return tl.exp((logits - highest) * heat)


@triton.jit
def _sample_kernel(
    logits, heats, targets, min_ps, top_ks, top_ps, chosen, row_size,
    V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64)
    row = logits + index * row_size
    offsets = tl.arange(0, BLOCK)
    highest, likeliest = float("-inf"), 0
    for start in range(0, V, BLOCK):
        at = start + offsets
        values = tl.load(row + at, at < V, other=float("-inf")).to(tl.float32)
        best = tl.max(values)
        where = start + tl.argmax(values, 0)
        likeliest = tl.where(best > highest, where, likeliest)
        highest = tl.maximum(highest, best)
    heat = tl.load(heats + index)  # 1 / temperature; 0: greedy
    if heat > 0:
        low = tl.maximum(tl.load(min_ps + index), 1e-38)
        top_k, top_p = tl.load(top_ks + index), tl.load(top_ps + index)
        if top_k > 0:
            low = tl.maximum(low, _threshold(row, highest, heat, 0.0, top_k, V, BLOCK, True))
        if top_p < 1:
            low = tl.maximum(low, _threshold(row, highest, heat, low, top_p, V, BLOCK, False))
        total = _mass(row, highest, heat, low, V, BLOCK)
        wanted = tl.load(targets + index) * total
        before, found = 0.0, 0
        for start in range(0, V, BLOCK):
            at = start + offsets
            weights = _weights(row, at, V, highest, heat)
            weights = tl.where(weights >= low, weights, 0.0)
            if found == 0:  # where rounding leads past the end, the likeliest it is
                passed = (before + tl.cumsum(weights, 0) > wanted) & (weights > 0)
                first = tl.min(tl.where(passed, at, V))
                likeliest = tl.where(first < V, first, likeliest)
                found = tl.where(first < V, 1, found)
            before += tl.sum(weights)
    tl.store(chosen + index, likeliest.to(tl.int64))


@triton.jit
def _mass(row, highest, heat, low, V: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of the weights that are at least `low`."""
    total = 0.0
    for start in range(0, V, BLOCK):
        weights = _weights(row, start + tl.arange(0, BLOCK), V, highest, heat)
        total += tl.sum(tl.where(weights >= low, weights, 0.0))
    return total


@triton.jit
def _threshold(
    row, highest, heat, low, share, V: tl.constexpr, BLOCK: tl.constexpr, COUNT: tl.constexpr
):
    """The largest t so that the weights of at least t are `share` many, or `share` of the mass.

    Eight candidates a pass over the row.
    """
    needed = share.to(tl.float32)
    if not COUNT:
        needed *= _mass(row, highest, heat, low, V, BLOCK)
    yes, no = 0, 0x3F800001  # the bits of 0.0 and of just over 1.0
    for _ in range(13):
        width = tl.maximum((no - yes) // 8, 1)
        candidates = yes + width * tl.arange(0, 8)
        bounds = candidates.to(tl.float32, bitcast=True)
        mass = tl.zeros([8], tl.float32)
        for start in range(0, V, BLOCK):
            weights = _weights(row, start + tl.arange(0, BLOCK), V, highest, heat)[:, None]
            values = 1.0 if COUNT else weights
            mass += tl.sum(tl.where(weights >= bounds[None, :], values, 0.0), 0)
        good = tl.sum((mass >= needed).to(tl.int32))  # the first is always one
        no = tl.where(good < 8, tl.minimum(no, yes + good * width), no)
        yes = tl.minimum(yes + (good - 1) * width, no - 1)
    return yes.to(tl.float32, bitcast=True)


def sample_tokens(
    logits: torch.Tensor,
    temperatures: torch.Tensor,
    targets: torch.Tensor,
    min_ps: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
) -> torch.Tensor:
    """One token a row → int64 [rows].

    logits [rows, vocabulary]; float32 [rows]: temperatures (0: greedy), targets (uniform in
    [0, 1)), min_ps (0: off), top_ps (1: off); int32 [rows]: top_ks (0: off). top-p counts within
    top-k.
    """
    rows, vocabulary = logits.shape
    chosen = torch.empty(rows, dtype=torch.int64, device=logits.device)
    heats = torch.where(temperatures > 0, 1 / temperatures, 0.0)
    _sample_kernel[(rows,)](
        *(logits, heats, targets, min_ps, top_ks, top_ps, chosen, logits.stride(0)),
        *(vocabulary, _BLOCK),
        num_warps=8,
    )
    return chosen
