"""A loaded model → its forward pass, probed, and a KV cache as large as memory allows."""

from typing import Any

from gpu_worker.engine.admission_probe import PROBE_BLOCKS, probe
from gpu_worker.engine.attention import KvCache
from gpu_worker.engine.blocks import BLOCK, BlockPool, blocks_for
from gpu_worker.engine.config import EngineConfig
from gpu_worker.engine.forward import Forward
from gpu_worker.engine.lora.residency import Residency
from gpu_worker.engine.request import ModelRefused
from gpu_worker.engine.weights import LoadedModel
from kernels.grouped_lora import LoraKernel


def allocate(
    loaded: LoadedModel,
    config: EngineConfig,
    kernel: LoraKernel[Any, Any],
    adapters: Residency[Any],
    expected: Any,
) -> tuple[Forward, BlockPool]:
    """Probe the model on a small cache (`expected`: eager attention's logits), learn what a token
    costs, make the real one.

    Raises ModelRefused.
    """
    machine = loaded.machine
    small = KvCache(PROBE_BLOCKS * BLOCK, machine.stored, machine.kernels)
    forward = Forward(loaded.model, machine.device, small, kernel, adapters)
    forward.row_by_row = config.deterministic
    probe(forward, loaded.vocabulary, expected, machine.stored)
    blocks = _blocks(loaded, config, kernel, small.bytes_per_token() * BLOCK)
    forward.cache = KvCache(blocks * BLOCK, machine.stored, machine.kernels, like=small)
    if machine.compiled:
        longest = min(blocks_for(loaded.context_length), blocks)
        forward.decode = forward.record_decode(config.max_running, longest)
    elif machine.triton:
        context = min(loaded.context_length, (blocks - 1) * BLOCK)
        forward.decode = forward.graph_decode(config.max_running, context, loaded.vocabulary)
    return forward, BlockPool(blocks)


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
