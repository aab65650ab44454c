"""Each Triton kernel against torch: the largest difference first, then achieved bandwidth.

Bytes are what must be read and written at least once. What is smaller than the L2 cache (some 50
MB) stays there from call to call: only attention and LoRA, whose data are larger, show the memory's
bandwidth; of the others look at the microseconds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from kernels.gpu.attention import decode_attention, prefill_attention, prefill_tiles, store_kv
from kernels.gpu.lora import GpuLora
from kernels.gpu.pointwise import rms_norm, rope_, silu_mul
from kernels.gpu.sampling import sample_tokens
from kernels.grouped_lora import TorchLora

BLOCK = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one layer and the batch that runs through it."""

    batch: int = 64
    context: int = 1024
    prompt: int = 512
    heads: int = 32
    kv_heads: int = 8
    d: int = 128
    inner: int = 14336
    vocabulary: int = 128256
    rank: int = 16
    adapters: int = 64

    @property
    def hidden(self) -> int:
        return self.heads * self.d


TINY = Shape(4, 40, 20, 4, 2, 16, 48, 97, 4, 2)
Case = tuple[Callable[[], torch.Tensor], torch.Tensor, int]  # run, expected result, bytes


def measure(shape: Shape, device: torch.device, dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """By kernel: `max_abs_err` over the largest expected value (of token ids: whether any is
    wrong), `us` a call, `gb_s`."""
    torch.manual_seed(0)
    results = {}
    for name, make in CASES.items():
        run, expected, size = make(shape, {"device": device, "dtype": dtype})
        wrong = error(run(), expected)
        seconds = seconds_of(run, device)
        results[name] = {
            **{"max_abs_err": round(wrong, 5), "us": round(seconds * 1e6, 1)},
            "gb_s": round(size / seconds / 1e9),
        }
    return results


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.is_floating_point():
        return float(not torch.equal(result, expected))
    off = (result.float() - expected.float()).abs().max()
    return float(off / expected.float().abs().max())


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Of one call, without the time that it takes to launch it."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    for _ in range(3):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    for _ in range(10):
        graph.replay()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e5


def _size(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _cache(shape: Shape, kind: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and block tables of `batch` contexts, scattered."""
    blocks = -(-shape.context // BLOCK)
    keys, values = (
        torch.randn((shape.batch * blocks + 1) * BLOCK, shape.kv_heads, shape.d, **kind)
        for _ in range(2)
    )
    tables = torch.randperm(shape.batch * blocks, device=kind["device"]).view(shape.batch, -1) + 1
    return keys, values, tables.int()


def _context(cache: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    slots = (table.long()[:, None] * BLOCK + torch.arange(BLOCK, device=table.device)).flatten()
    return cache[slots[:length]].transpose(0, 1)  # [kv heads, length, d]


def _store(shape: Shape, kind: dict[str, Any]) -> Case:
    keys, values, _ = _cache(shape, kind)
    k, v = (torch.randn(shape.batch, shape.kv_heads, shape.d, **kind) for _ in range(2))
    slots = torch.randperm(len(keys), device=kind["device"])[: shape.batch]

    def run() -> torch.Tensor:
        store_kv(k, v, keys, values, slots)
        return torch.cat([keys[slots], values[slots]])

    return run, torch.cat([k, v]), 6 * _size(k)


def _decode(shape: Shape, kind: dict[str, Any]) -> Case:
    keys, values, tables = _cache(shape, kind)
    q = torch.randn(shape.batch, shape.heads, shape.d, **kind)
    lengths = torch.full((shape.batch,), shape.context, device=kind["device"], dtype=torch.int32)
    scale = shape.d**-0.5
    expected = torch.stack(
        [
            F.scaled_dot_product_attention(
                q[i][:, None].float(),
                _context(keys, tables[i], shape.context).float(),
                _context(values, tables[i], shape.context).float(),
                scale=scale,
                enable_gqa=True,
            )[:, 0]
            for i in range(shape.batch)
        ]
    )

    def run() -> torch.Tensor:
        return decode_attention(q, keys, values, tables, lengths, block=BLOCK, scale=scale)

    return run, expected, 2 * shape.batch * shape.context * _size(keys[0])


def _prefill(shape: Shape, kind: dict[str, Any]) -> Case:
    keys, values, tables = _cache(shape, kind)
    first = shape.context - shape.prompt
    q = torch.randn(shape.prompt, shape.heads, shape.d, **kind)
    tiles = torch.tensor(prefill_tiles([(0, shape.prompt, first)]), dtype=torch.int32)
    tiles = tiles.to(kind["device"])
    mask = torch.ones(shape.prompt, shape.context, dtype=torch.bool, device=kind["device"])
    expected = F.scaled_dot_product_attention(
        q.transpose(0, 1).float(),
        _context(keys, tables[0], shape.context).float(),
        _context(values, tables[0], shape.context).float(),
        attn_mask=mask.tril(first),
        enable_gqa=True,
    ).transpose(0, 1)
    out = torch.empty_like(q)

    def run() -> torch.Tensor:
        form = {"block": BLOCK, "scale": shape.d**-0.5}
        prefill_attention(q, keys, values, tables, tiles, out, **form)
        return out

    return run, expected, 2 * _size(q) + 2 * shape.context * _size(keys[0])


def _lora(shape: Shape, kind: dict[str, Any]) -> Case:
    """The fused q, k, v of `batch` rows with their adapters in equal shares, in four layers."""
    layers, kv = 4, shape.kv_heads * shape.d
    widths = (shape.hidden, kv, kv)
    groups = [(shape.hidden, widths)] * layers
    device, dtype = kind["device"], kind["dtype"]
    rows = shape.batch
    ours = GpuLora(groups, dtype, device, slots=shape.adapters, max_rows=rows)
    torchs = TorchLora(groups, dtype, device)
    spans, placed, reference, size = [], [], [], 0
    for index in range(shape.adapters):
        pairs = [
            [
                (torch.randn(shape.rank, shape.hidden) * 0.02, torch.randn(n, shape.rank) * 0.02)
                for n in widths
            ]
            for _ in range(layers)
        ]
        spans.append((index * rows // shape.adapters, (index + 1) * rows // shape.adapters))
        placed.append(ours.place(ours.pack(pairs)))
        reference.append(torchs.pack(pairs))
        size += torchs.size(reference[-1])
    x = torch.randn(rows, shape.hidden, **kind)
    outputs = torch.zeros(layers, rows, sum(widths), **kind)
    nothing = [torch.nn.Identity() for _ in range(layers)]
    for layer, y in zip(nothing, outputs, strict=True):
        layer.forward = lambda _, y=y: y  # type: ignore[method-assign, misc]
    ours.begin(spans, placed, decoding=True)
    torchs.begin(spans, reference)
    for index, layer in enumerate(nothing):
        torchs.linear(layer, index, x)
    expected = outputs.clone()

    def run() -> torch.Tensor:
        outputs.zero_()
        for index, layer in enumerate(nothing):
            ours.linear(layer, index, x)
        return outputs

    return run, expected, size


def _rms_norm(shape: Shape, kind: dict[str, Any]) -> Case:
    x, weight = torch.randn(shape.batch, shape.hidden, **kind), torch.randn(shape.hidden, **kind)
    expected = F.rms_norm(x.float(), [shape.hidden], weight.float(), 1e-5)
    return lambda: rms_norm(x, weight, 1e-5), expected, 2 * _size(x)


def _silu_mul(shape: Shape, kind: dict[str, Any]) -> Case:
    x = torch.randn(shape.batch, 2 * shape.inner, **kind)
    gate, up = x.float().chunk(2, -1)
    return lambda: silu_mul(x), F.silu(gate) * up, _size(x) * 3 // 2


def _rope(shape: Shape, kind: dict[str, Any]) -> Case:
    x = torch.randn(shape.batch, shape.heads, shape.d, **kind)
    angle = torch.rand(shape.batch, shape.d // 2, device=kind["device"]).repeat(1, 2)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    half = shape.d // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    expected = x.float() * cos[:, None] + turned.float() * sin[:, None]

    def run() -> torch.Tensor:
        return rope_(x.clone(), cos, sin)

    return run, expected, 4 * _size(x)


def _sample(shape: Shape, kind: dict[str, Any]) -> Case:
    """Greedy, so that there is one right answer; half of the rows are made sharp for top-p."""
    logits = torch.randn(shape.batch, shape.vocabulary, device=kind["device"])
    winners = torch.arange(shape.batch, device=logits.device)
    logits[winners, winners] = 60.0
    numbers = torch.full((shape.batch,), 0.5, device=logits.device)
    temperatures = torch.where(winners % 2 == 0, 0.0, 1.0)
    top_ks = torch.zeros(shape.batch, dtype=torch.int32, device=logits.device)

    def run() -> torch.Tensor:
        return sample_tokens(logits, temperatures, numbers, numbers * 0, top_ks, numbers * 1.8)

    return run, winners, _size(logits)


CASES: dict[str, Callable[[Shape, dict[str, Any]], Case]] = {
    "store_kv": _store,
    "decode_attention": _decode,
    "prefill_attention": _prefill,
    "lora_qkv": _lora,
    "rms_norm": _rms_norm,
    "silu_mul": _silu_mul,
    "rope": _rope,
    "sample": _sample,
}
