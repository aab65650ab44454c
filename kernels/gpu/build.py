"""Compile every kernel for a GPU that needn't be there: python -m kernels.gpu.build [80|90|…]

Prints, by kernel, bytes of shared memory and of code, and how many loads are wide (16 bytes or
asynchronous): what the interpreter can't tell. bfloat16, in shapes of well-known models.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.gpu import attention, linear, lora, pointwise, sampling

_B = "*bf16"


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel with types of its pointers and values of its constants; what else it takes are
    integers (strides and sizes, multiples of 16) and `floats`."""

    name: str
    kernel: Any
    pointers: dict[str, str]
    constants: dict[str, Any]
    floats: tuple[str, ...] = ()
    warps: int = 4

    def compile(self, arch: int) -> dict[str, int]:
        arguments = self.kernel.arg_names
        signature = {a: "i32" for a in arguments} | self.pointers
        signature |= {a: "fp32" for a in self.floats} | {a: "constexpr" for a in self.constants}
        aligned = [i for i, a in enumerate(arguments) if signature[a] not in ("constexpr", "fp32")]
        source = ASTSource(
            self.kernel,
            signature,
            {(arguments.index(name),): value for name, value in self.constants.items()},
            {(i,): [["tt.divisibility", 16]] for i in aligned},
        )
        made = triton.compile(source, GPUTarget("cuda", arch, 32), {"num_warps": self.warps})
        ptx = made.asm["ptx"]
        return {
            "shared": made.metadata.shared,
            "wide_loads": ptx.count("ld.global.v4") + ptx.count("cp.async"),
            "code": len(made.asm["cubin"]),
        }


@dataclass(frozen=True, slots=True)
class Heads:
    """Of an attention layer."""

    d: int
    dv: int
    heads: int
    kv_heads: int
    form: dict[str, Any] = field(
        default_factory=lambda: {"SOFTCAP": 0.0, "WINDOW": 0, "SINKS": False}
    )

    def variants(self) -> Iterator[Variant]:
        name = f"{self.d}x{self.dv}, {self.heads}/{self.kv_heads}, window {self.form['WINDOW']}"
        block_d, block_dv, block_n = attention._blocks(self.d, self.dv, torch.bfloat16)
        sizes = {"DV": self.dv, "BLOCK_DV": block_dv, "HEADS": self.heads}
        shape = sizes | {"D": self.d, "BLOCK_D": block_d, "KV_HEADS": self.kv_heads}
        shape |= {"SCALE": 0.1, "PAGE": 16, "BLOCK_N": block_n}
        cache = {"q": _B, "keys": _B, "values": _B, "tables": "*i32"}
        pieces = {"mixes": "*fp32", "logsums": "*fp32", "lengths": "*i32"}
        split = {"SPLIT": attention.SPLIT}
        no_sinks = {name: value for name, value in self.form.items() if name != "SINKS"}
        no_cap = {name: value for name, value in self.form.items() if name != "SOFTCAP"}
        group = max(16, triton.next_power_of_2(self.heads // self.kv_heads))
        yield Variant(
            *(f"decode {name}", attention._decode_kernel, cache | pieces),
            shape | split | no_sinks | {"BLOCK_H": group},
        )
        yield Variant(
            *(f"join {name}", attention._join_kernel, pieces | {"sinks": "*fp32", "out": _B}),
            sizes | split | no_cap,
            warps=1,
        )
        yield Variant(
            f"prefill {name}",
            attention._prefill_kernel,
            cache | {"tiles": "*i32", "sinks": "*fp32", "out": _B},
            shape | self.form | {"BLOCK_M": attention.PREFILL_TILE},
            warps=8 if block_d > 128 else 4,
        )


def variants() -> Iterator[Variant]:
    for heads in (
        Heads(64, 64, 9, 3),
        Heads(128, 128, 32, 8),
        Heads(192, 128, 16, 16),
        Heads(256, 256, 8, 4, {"SOFTCAP": 30.0, "WINDOW": 4096, "SINKS": True}),
    ):
        yield from heads.variants()
    row = {"k": _B, "v": _B, "keys": _B, "values": _B, "slots": "*i32"}
    yield Variant("store", attention._store_kernel, row, {"K": 1024, "V": 1024, "WIDTH": 1024})
    tables = {"tiles": "*i32", "weights": "*i64", "ranks": "*i32", "partials": "*fp32"}
    for tile in (lora.DECODE_TILE, lora.PREFILL_TILE):
        layer = {"FIRST": 0, "SLICES": 3, "ALL": 7, "MAX_RANK": lora.MAX_RANK}
        layer |= {"BLOCK_M": tile, "BLOCK_R": 16}
        yield Variant(
            *(f"shrink {tile}", lora._shrink_kernel, tables | {"x": _B}),
            layer | {"K": 4096, "SPLIT_K": lora.SPLIT_K, "BLOCK_K": 128},
        )
        yield Variant(
            *(f"expand {tile}", lora._expand_kernel, tables | {"y": _B, "blocks": "*i32"}),
            layer | {"SPLITS": 4, "ALIGN": 16, "BLOCK_N": lora._BLOCK_N},
        )
    yield Variant(
        *("rms_norm", pointwise._rms_norm_kernel, {"x": _B, "weight": _B, "y": _B}),
        *({"N": 4096, "BLOCK": 4096}, ("eps",), 8),
    )
    yield Variant(
        "silu_mul", pointwise._silu_mul_kernel, {"x": _B, "y": _B}, {"N": 14336, "BLOCK": 1024}
    )
    yield Variant(
        *("linear", linear._linear_kernel, {"x": _B, "weight": _B, "bias": _B, "y": _B}),
        {"N": 4096, "K": 4096, "BIAS": True}
        | {"BLOCK_M": linear._BLOCK_M, "BLOCK_N": linear._BLOCK_N, "BLOCK_K": linear._BLOCK_K},
    )
    angles = {"x": _B, "cos": _B, "sin": _B}
    yield Variant("rope", pointwise._rope_kernel, angles, {"D": 128, "HALF": 64}, warps=1)
    floats = dict.fromkeys(("logits", "heats", "targets", "min_ps", "top_ps"), "*fp32")
    yield Variant(
        *("sample", sampling._sample_kernel, floats | {"top_ks": "*i32", "chosen": "*i64"}),
        *({"V": 128256, "BLOCK": sampling._BLOCK}, (), 8),
    )


def main() -> None:
    arch = int(sys.argv[1]) if len(sys.argv) > 1 else 90
    made = {variant.name: variant.compile(arch) for variant in variants()}
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
