"""A loaded model → its forward pass, probed, and a KV cache as large as memory allows."""

from collections.abc import Callable
from typing import Any

import torch

from gpu_worker.engine.admission_probe import PROBE_BLOCKS, probe
from gpu_worker.engine.attention import KvCache, bytes_per_token
from gpu_worker.engine.blocks import BLOCK, BlockPool, blocks_for
from gpu_worker.engine.config import EngineConfig
from gpu_worker.engine.findings import Findings
from gpu_worker.engine.forward import Forward
from gpu_worker.engine.later import Later
from gpu_worker.engine.lora.residency import Residency
from gpu_worker.engine.request import ModelRefused
from gpu_worker.engine.weights import LoadedModel
from kernels.grouped_lora import LoraKernel


def allocate(
    loaded: LoadedModel,
    config: EngineConfig,
    kernel: LoraKernel[Any, Any],
    adapters: Residency[Any],
    expected: torch.Tensor | None,
    findings: Findings,
) -> tuple[Forward, BlockPool, Later]:
    """Probe the model on a small cache (`expected`: eager attention's logits; None: it was probed
    before), learn what a token costs, make the real one.

    Raises ModelRefused. Returns also what can be done after the first token.
    """
    machine = loaded.machine
    small = KvCache(PROBE_BLOCKS * BLOCK, machine.stored, machine.kernels, machine.device)
    forward = Forward(loaded.model, machine.device, small, kernel, adapters)
    forward.row_by_row = config.deterministic
    later = [layer.pack for layer in machine.unpacked]
    machine.unpacked = []
    if expected is not None:
        _probe(forward, loaded, expected, later)
        later = []
        findings.keep(small.shapes)
    layers = small.shapes if findings.layers is None else findings.layers
    token_bytes = bytes_per_token(layers, machine.stored)
    blocks = _blocks(loaded, config, kernel, token_bytes * BLOCK)
    slots = blocks * BLOCK
    forward.cache = KvCache(slots, machine.stored, machine.kernels, machine.device, layers)
    if machine.compiled:
        longest = min(blocks_for(loaded.context_length), blocks)

        def record() -> None:
            forward.decode = forward.record_decode(config.max_running, longest)

        later.append(record)
    elif machine.triton:
        context = min(loaded.context_length, (blocks - 1) * BLOCK)
        forward.decode = forward.graph_decode(config.max_running, context, loaded.vocabulary)
    return forward, BlockPool(blocks), Later(later)


def _probe(
    forward: Forward,
    loaded: LoadedModel,
    expected: torch.Tensor,
    packs: list[Callable[[], None]],
) -> None:
    """As the next start's first token is computed, and as all others are: where that differs."""
    probe(forward, loaded.vocabulary, expected, loaded.machine.stored)
    if packs:
        for pack in packs:
            pack()
        probe(forward, loaded.vocabulary, expected, loaded.machine.stored)


def _blocks(
    loaded: LoadedModel, config: EngineConfig, kernel: LoraKernel[Any, Any], block_bytes: int
) -> int:
    """As many as fit, or as the longest requests can use. One is for padding."""
    reserved = kernel.slot_bytes * config.max_adapters
    memory = loaded.machine.kv_cache_bytes(config.kv_cache_gib, reserved)
    most = 1 + config.max_running * blocks_for(loaded.context_length)
    blocks = min(memory // block_bytes, most)
    if blocks < 2:
        raise ModelRefused(
            f"{memory / 2**30:.3g} GiB for the KV cache is less than one block: set a larger "
            "kv_cache_gib, or fewer max_adapters on a GPU"
        )
    return blocks
