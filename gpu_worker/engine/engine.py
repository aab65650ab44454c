"""The engine: add requests, step, cancel. Continuous batching over mixed adapters."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpu_worker.engine.admission_probe import probe
from gpu_worker.engine.attention import KvCache
from gpu_worker.engine.blocks import BLOCK, BlockPool, blocks_for
from gpu_worker.engine.forward import Forward
from gpu_worker.engine.lora.linears import install
from gpu_worker.engine.lora.slots import AdapterSlots
from gpu_worker.engine.request import Finish, ModelRefused, Output, Request, TooLong
from gpu_worker.engine.sampling import sample
from gpu_worker.engine.schedule import Chunk, Schedule, Sequence
from gpu_worker.engine.weights import context_length, eos_ids, load, pick_device, pick_dtype


@dataclass(frozen=True, slots=True)
class EngineConfig:
    device: str = "auto"
    dtype: str = "auto"
    max_running: int = 32  # sequences in one batch
    max_step_tokens: int = 512
    kv_cache_gib: float = 1.0
    max_adapters: int = 64


@dataclass(slots=True)
class StepStats:
    """Of the latest step."""

    sequences: int = 0
    tokens: int = 0
    adapters: tuple[str | None, ...] = ()  # distinct; None is the base model


class Engine:
    """One base model with any mix of its adapters. Not thread-safe: one owner.

    `locate` gives the folder of an adapter (PEFT format) by its digest.
    Raises ModelRefused when the model can't be loaded or isn't computed correctly.
    """

    def __init__(
        self, model_folder: Path, config: EngineConfig, locate: Callable[[str], Path]
    ) -> None:
        device = pick_device(config.device)
        dtype = pick_dtype(config.dtype, device)
        model = load(model_folder, dtype, device)
        self.eos = eos_ids(model)
        self.context_length = context_length(model)
        shapes = install(model)
        self._forward = Forward(model, device)
        self._schedule = self._allocate(model.config.get_text_config().vocab_size, config)  # type: ignore[union-attr, operator]
        self.adapters = AdapterSlots(config.max_adapters, locate, shapes, dtype, device)
        self.stats = StepStats()

    def _allocate(self, vocabulary: int, config: EngineConfig) -> Schedule:
        """Probe the model on a small cache, learn what a token costs, make the real one."""
        self._forward.cache = KvCache(9 * BLOCK)
        probe(self._forward, vocabulary)
        block_bytes = self._forward.cache.bytes_per_token() * BLOCK
        blocks = min(
            int(config.kv_cache_gib * 2**30) // block_bytes,
            1 + config.max_running * blocks_for(self.context_length),
        )
        if blocks < 2:
            raise ModelRefused(f"kv_cache_gib {config.kv_cache_gib} is less than one KV block")
        self._forward.cache = KvCache(blocks * BLOCK)
        return Schedule(BlockPool(blocks), config.max_running, config.max_step_tokens)

    @property
    def room(self) -> int:
        """How many more requests the batch has room for."""
        return self._schedule.max_running - self.load

    @property
    def load(self) -> int:
        """Requests in the engine."""
        return len(self._schedule.running) + len(self._schedule.waiting)

    def add(self, request: Request) -> None:
        """Queue a request for the next step. Raises TooLong or AdapterRefused."""
        needed = len(request.prompt) + request.sampling.max_tokens
        capacity = min(self.context_length, self._schedule.pool.size * BLOCK)
        if not request.prompt or needed > capacity:
            raise TooLong(
                f"{len(request.prompt)} prompt tokens + {request.sampling.max_tokens} new ones: "
                f"this replica holds 1 … {capacity} tokens a request"
            )
        if request.adapter is not None:
            self.adapters.pin(request.adapter)
        self._schedule.add(Sequence.begin(request))

    def cancel(self, request_id: str) -> Output | None:
        """End a request and free what it holds. None: it isn't here (any more)."""
        sequence = self._schedule.find(request_id)
        if sequence is None:
            return None
        self._end(sequence)
        return Output(request_id, sequence.position, [], "cancelled")

    def step(self) -> list[Output]:
        """Compute one batch; a token for every sequence that is past its prompt."""
        chunks = self._schedule.next()
        if not chunks:
            return []
        logits = self._forward(chunks, self.adapters.__getitem__)
        sampling = [c for c in chunks if c.samples]
        rows = [(c.sequence.request.sampling, c.sequence.position) for c in sampling]
        tokens = sample(logits, rows)
        for chunk in chunks:
            chunk.sequence.computed += chunk.count
        self.stats = _stats(chunks)
        return [self._advance(c.sequence, t) for c, t in zip(sampling, tokens, strict=True)]

    def _advance(self, sequence: Sequence, token: int) -> Output:
        position = sequence.position
        sequence.tokens.append(token)
        finish = self._finish(sequence, token)
        if finish:
            self._end(sequence)
        return Output(sequence.request.id, position, [token], finish)

    def _finish(self, sequence: Sequence, token: int) -> Finish | None:
        sampling = sequence.request.sampling
        if token in self.eos and not sampling.ignore_eos:
            return "stop"
        return "length" if sequence.position >= sampling.max_tokens else None

    def _end(self, sequence: Sequence) -> None:
        self._schedule.remove(sequence)
        if sequence.request.adapter is not None:
            self.adapters.unpin(sequence.request.adapter)


def _stats(chunks: list[Chunk]) -> StepStats:
    adapters = tuple(dict.fromkeys(c.sequence.request.adapter for c in chunks))
    return StepStats(len(chunks), sum(c.count for c in chunks), adapters)
