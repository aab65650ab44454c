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
    """`run` computes logits of (ids, positions, rows to keep) under `STEP`."""

    def __init__(
        self, run: Run, cache: KvCache, kernel: "GpuLora", rows: int, context: int
    ) -> None:
        """For up to `rows` sequences of up to `context` tokens."""
        self._run, self._cache, self._kernel = run, cache, kernel
        self._device = next(iter(cache.layers.values()))[0].device
        self._rows = padded(rows)
        self._most_blocks = blocks_for(min(context, GRAPH_CONTEXT))
        self._graphs: dict[tuple[int, bool], tuple[Replay, torch.Tensor]] = {}
        self._broken = False
        self._pool: Any = None  # of memory, shared by the graphs
        # ids, where an id is still on the device, positions, slots to write, lengths
        self._small = torch.zeros(5, self._rows, dtype=torch.int32, device=self._device)
        self._ids = torch.zeros(1, self._rows, dtype=torch.int64, device=self._device)
        self._positions = torch.zeros(1, self._rows, dtype=torch.int64, device=self._device)
        shape = (self._rows, self._most_blocks)
        self._tables = torch.zeros(shape, dtype=torch.int32, device=self._device)
        self._tables_sent = np.zeros(shape, dtype=np.int32)

    def accepts(self, chunks: list[Chunk]) -> bool:
        """Every chunk is one token, and no context is too long."""
        longest = max(c.start for c in chunks) + 1
        return not self._broken and longest <= self._most_blocks * BLOCK

    def __call__(self, chunks: list[Chunk], adapted: bool, unread: Unread | None) -> torch.Tensor:
        """Logits [chunks, vocabulary]; overwritten by the next step."""
        size = padded(len(chunks))
        self._send(chunks, size, unread)
        if (size, adapted) not in self._graphs:
            return self._first(size, adapted)[: len(chunks)]
        replay, logits = self._graphs[size, adapted]
        replay()
        return logits[: len(chunks)]

    def _send(self, chunks: list[Chunk], size: int, unread: Unread | None) -> None:
        small = np.zeros((5, size), dtype=np.int32)
        small[1] = -1
        small[4] = 1  # padding rows attend to the padding block's first token
        tables = np.zeros((size, self._most_blocks), dtype=np.int32)
        for row, chunk in enumerate(chunks):
            at, sequence = chunk.start, chunk.sequence
            token = sequence.tokens[at]
            if token == PENDING and unread is not None:
                small[1, row] = unread.row_of[sequence]
            small[0, row], small[2, row], small[4, row] = max(token, 0), at, at + 1
            small[3, row] = sequence.blocks[at // BLOCK] * BLOCK + at % BLOCK
            tables[row, : len(sequence.blocks)] = sequence.blocks[: self._most_blocks]
        self._small[:, :size] = torch.from_numpy(small).to(self._device, non_blocking=True)
        if not np.array_equal(tables, self._tables_sent[:size]):
            self._tables_sent[:size] = tables
            sent = torch.from_numpy(tables).to(self._device, non_blocking=True)
            self._tables[:size] = sent
        ids = self._small[0, :size].long()
        if unread is not None:
            ids = unread.fill(ids, self._small[1, :size])
        self._ids[0, :size] = ids
        self._positions[0, :size] = self._small[2, :size]

    def _first(self, size: int, adapted: bool) -> torch.Tensor:
        """The step the ordinary way, and the graph for the next ones of its kind."""
        every = torch.arange(size, device=self._device)
        STEP.metadata = StepMetadata(
            *(self._small[3, :size], every, self._tables[:size], self._small[4, :size])
        )
        STEP.cache = self._cache
        LORA.kernel = self._kernel if adapted else None
        self._kernel.fixed(size)

        def run() -> torch.Tensor:
            return self._run(self._ids[:, :size], self._positions[:, :size], every)

        try:
            logits = run()
            try:
                self._graphs[size, adapted] = self._capture(run)
            except RuntimeError as failed:
                log.warning("decode steps run without CUDA graphs: %s", failed)
                self._broken = True
            return logits
        finally:
            STEP.metadata, STEP.cache, LORA.kernel = None, None, None

    def _capture(self, run: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
        if self._device.type != "cuda":  # Triton's interpreter: the same buffers, run again
            return self._rerun(run, STEP.metadata, LORA.kernel)
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        # thread_local: adapters are pinned in another thread meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = run()
        self._pool = self._pool or graph.pool()
        return graph.replay, logits

    def _rerun(
        self, run: Callable[[], torch.Tensor], metadata: Any, kernel: Any
    ) -> tuple[Replay, torch.Tensor]:
        logits = run()
        size = len(logits)

        def replay() -> None:
            STEP.metadata, STEP.cache, LORA.kernel = metadata, self._cache, kernel
            self._kernel.fixed(size)
            try:
                logits.copy_(run())
            finally:
                STEP.metadata, STEP.cache, LORA.kernel = None, None, None

        return replay, logits
