"""Decode steps on a GPU as CUDA graphs: one launch a step instead of a thousand.

A graph is captured for each padded batch size when it is first met, with and without adapters, so
that a base-only step costs nothing more. What changes from step to step lies in buffers that stay
where they are. Longer contexts than `GRAPH_CONTEXT`, prompts, and models whose forward can't be
captured go the ordinary way.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpu_worker.engine.attention import STEP, KvCache, StepMetadata
from gpu_worker.engine.blocks import BLOCK, blocks_for
from gpu_worker.engine.lora.linears import LORA
from gpu_worker.engine.schedule import PENDING, Chunk
from gpu_worker.engine.unread import Unread
from kernels.transfer import to_device

if TYPE_CHECKING:  # Triton isn't everywhere
    from kernels.gpu.lora import GpuLora

log = logging.getLogger(__name__)

GRAPH_CONTEXT = 16384  # tokens; bounds the buffer of partial attention results
Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Replay = Callable[[], None]


def padded(rows: int) -> int:
    """1, 2, 4, 8, 16, 24, 32, …: few sizes, little waste."""
    return 1 << (rows - 1).bit_length() if rows <= 8 else -(-rows // 8) * 8


class GraphedDecode:
    """`run` computes logits of (ids, positions, rows to keep) under `STEP`.

    A graph reads and writes only what this object keeps: memory of the moment would be another's
    by the time of the replay.
    """

    def __init__(
        self,
        run: Run,
        cache: KvCache,
        kernel: "GpuLora",
        rows: int,
        context: int,
        vocabulary: int,
    ) -> None:
        """For up to `rows` sequences of up to `context` tokens."""
        self._run, self._cache, self._kernel = run, cache, kernel
        self._device = next(iter(cache.layers.values()))[0].device
        self._rows = padded(rows)
        self._most_blocks = blocks_for(min(context, GRAPH_CONTEXT))
        self._graphs: dict[tuple[int, int], Replay] = {}
        self._broken = False
        self._pool: Any = None  # of memory, shared by the graphs

        def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self._device)

        # ids, where an id is still on the device, positions, slots to write, lengths
        self._small = zeros(5, self._rows, dtype=torch.int32)
        self._ids = zeros(1, self._rows, dtype=torch.int64)
        self._positions = zeros(1, self._rows, dtype=torch.int64)
        self._every = torch.arange(self._rows, device=self._device)
        self._logits = zeros(self._rows, vocabulary, dtype=cache.dtype)
        self._tables = zeros(self._rows, self._most_blocks, dtype=torch.int32)
        # The list of blocks that each row of the tables has, and how many of them
        self._sent: list[tuple[list[int] | None, int]] = [(None, 0)] * self._rows

    def accepts(self, chunks: list[Chunk]) -> bool:
        """Every chunk is one token, and no context is too long."""
        longest = max(c.start for c in chunks) + 1
        return not self._broken and longest <= self._most_blocks * BLOCK

    def __call__(self, chunks: list[Chunk], adapted: bool, unread: Unread | None) -> torch.Tensor:
        """Logits [chunks, vocabulary]; overwritten by the next step."""
        size = padded(len(chunks))
        self._send(chunks, size, unread)
        key = size, self._kernel.variant if adapted else 0
        if key in self._graphs:
            self._graphs[key]()
            return self._logits[: len(chunks)]
        return self._first(size, key)[: len(chunks)]

    def _send(self, chunks: list[Chunk], size: int, unread: Unread | None) -> None:
        small = np.zeros((5, size), dtype=np.int32)
        small[1] = -1
        small[4] = 1  # padding rows attend to the padding block's first token
        pending = False
        for row, chunk in enumerate(chunks):
            at, sequence = chunk.start, chunk.sequence
            token = sequence.tokens[at]
            if token == PENDING and unread is not None:
                small[1, row] = unread.row_of[sequence]
                pending = True
            small[0, row], small[2, row], small[4, row] = max(token, 0), at, at + 1
            small[3, row] = sequence.blocks[at // BLOCK] * BLOCK + at % BLOCK
        self._send_tables(chunks)
        self._small[:, :size] = to_device(torch.from_numpy(small), self._device)
        ids = self._small[0, :size].long()
        if unread is not None and pending:
            ids = unread.fill(ids, self._small[1, :size])
        self._ids[0, :size] = ids
        self._positions[0, :size] = self._small[2, :size]

    def _send_tables(self, chunks: list[Chunk]) -> None:
        """What is new in them. A sequence's list of blocks only grows, or is another list."""
        places: list[int] = []
        blocks: list[int] = []
        for row, chunk in enumerate(chunks):
            own = chunk.sequence.blocks
            known, count = self._sent[row]
            have = count if known is own else 0
            if have < len(own):
                start = row * self._most_blocks
                places += range(start + have, start + len(own))
                blocks += own[have:]
                self._sent[row] = own, len(own)
        if places:
            new = to_device(torch.tensor([places, blocks]), self._device)
            self._tables.view(-1)[new[0]] = new[1].int()

    def _first(self, size: int, key: tuple[int, int]) -> torch.Tensor:
        """The step the ordinary way, and the graph for the next ones of its kind."""
        metadata = StepMetadata(
            *(self._small[3, :size], self._every[:size]),
            *(self._tables[:size], self._small[4, :size]),
        )
        kernel = self._kernel if key[1] else None

        def run() -> torch.Tensor:
            STEP.metadata, STEP.cache, LORA.kernel = metadata, self._cache, kernel
            self._kernel.fixed(size)
            try:
                ids, positions = self._ids[:, :size], self._positions[:, :size]
                return self._run(ids, positions, self._every[:size])
            finally:
                STEP.metadata, STEP.cache, LORA.kernel = None, None, None

        logits = self._without_waiting(run)
        if self._broken:
            return logits
        self._graphs[key] = self._capture(size, run)
        self._graphs[key]()  # the same once more: writes are repeated with the same values
        if not torch.allclose(self._logits[:size].float(), logits.float(), rtol=0.05, atol=0.05):
            log.error("a captured decode step gives other results: steps run without CUDA graphs")
            self._broken = True
        return logits

    def _without_waiting(self, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Run; where the host waits for the device in between, no graph can be captured."""
        if self._device.type != "cuda":
            return run()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run()
        except RuntimeError as waits:
            log.warning("decode steps run without CUDA graphs: %s", waits)
            self._broken = True
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return run()

    def _capture(self, size: int, run: Callable[[], torch.Tensor]) -> Replay:
        def step() -> None:
            self._logits[:size] = run()

        if self._device.type != "cuda":  # Triton's interpreter: the same buffers, run again
            return step
        graph = torch.cuda.CUDAGraph()
        now = torch.cuda.current_stream(self._device)
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(now)
        # Not torch.cuda.graph(): it collects garbage and empties the allocator's cache each time.
        with torch.cuda.stream(aside):
            # thread_local: adapters are pinned in another thread meanwhile
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        now.wait_stream(aside)
        self._pool = self._pool or graph.pool()
        return graph.replay
