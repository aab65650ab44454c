"""Decode steps on the CPU as a recorded program: no Python between the layers' operations.

Recorded once for a full batch, run for any smaller one. Steps with prompt chunks, and models whose
forward looks at values, go the ordinary way.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gpu_worker.engine.attention import STEP, KvCache, StepMetadata
from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.request import Request, Sampling
from gpu_worker.engine.schedule import PENDING, Chunk, Sequence
from gpu_worker.engine.unread import Unread
from kernels.cpu.program import NotRecordable, Program

log = logging.getLogger(__name__)

Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class RecordedDecode:
    """`run` computes logits of (ids, positions, rows to keep) under `STEP`."""

    def __init__(self, run: Run, cache: KvCache, rows: int, most_blocks: int) -> None:
        """Raises NotRecordable."""
        self._ids = torch.zeros(1, rows, dtype=torch.long)
        self._positions = torch.zeros(1, rows, dtype=torch.long)
        self._write = torch.zeros(rows, dtype=torch.long)
        self._tables = torch.zeros(rows, most_blocks, dtype=torch.int32)
        self._lengths = torch.ones(rows, dtype=torch.long)
        every = torch.arange(rows)
        self._arrays: list[np.ndarray[Any, Any]] = [
            t.numpy() for t in (self._ids[0], self._positions[0], self._write, self._lengths)
        ]
        self._tables_array = self._tables.numpy()
        STEP.metadata = StepMetadata(self._write, every, self._tables, self._lengths)
        STEP.cache = cache
        try:
            run(self._ids, self._positions, every)  # what is made once is made now
            self._program = Program.capture(lambda: run(self._ids, self._positions, every), rows)
        except NotRecordable:
            raise
        except Exception as failed:  # of an operation that doesn't like to be watched
            raise NotRecordable(f"{type(failed).__name__}: {failed}") from failed
        finally:
            STEP.metadata, STEP.cache = None, None
        self._check(run, cache, min(3, rows))

    def _check(self, run: Run, cache: KvCache, rows: int) -> None:
        """Other inputs and fewer rows must give what an ordinary step gives. In the padding block.

        Raises NotRecordable: an operation whose rows aren't the step's, say.
        """
        vocabulary = self._program.output.shape[-1]
        chunks = [
            Chunk(Sequence(Request("", [], Sampling(1)), [], blocks=[0]), at, 1)
            for at in range(rows)
        ]
        for chunk in chunks:
            chunk.sequence.tokens = [(7 * (at + 1)) % vocabulary for at in range(rows)]
        recorded = self(chunks, True).clone()
        STEP.metadata = StepMetadata(
            self._write[:rows], torch.arange(rows), self._tables[:rows], self._lengths[:rows]
        )
        STEP.cache = cache
        try:
            ids, positions = self._ids[:, :rows], self._positions[:, :rows]
            expected = run(ids, positions, torch.arange(rows))
        finally:
            STEP.metadata, STEP.cache = None, None
        if not torch.allclose(recorded, expected, rtol=1e-4, atol=1e-4):
            raise NotRecordable("it gives other results than an ordinary step")

    def accepts(self, chunks: list[Chunk]) -> bool:
        """Every chunk is one token."""
        return True

    def __call__(
        self, chunks: list[Chunk], adapted: bool, unread: Unread | None = None
    ) -> torch.Tensor:
        """Logits [chunks, vocabulary]. The program runs adapters as the kernel was told."""
        ids, positions, write, lengths = self._arrays
        for row, chunk in enumerate(chunks):
            at, blocks = chunk.start, chunk.sequence.blocks
            token = chunk.sequence.tokens[at]
            if token == PENDING and unread is not None:
                token = int(unread.tokens[unread.row_of[chunk.sequence]])
            ids[row] = token
            positions[row] = at
            write[row] = blocks[at // BLOCK] * BLOCK + at % BLOCK
            lengths[row] = at + 1
            self._tables_array[row, : len(blocks)] = blocks
        return self._program.run(len(chunks))[: len(chunks)]


def record(run: Run, cache: KvCache, rows: int, most_blocks: int) -> RecordedDecode | None:
    """None for a model that can't be recorded."""
    try:
        return RecordedDecode(run, cache, rows, most_blocks)
    except NotRecordable as reason:
        log.info("decode steps run one operation at a time: %s", reason)
        return None
