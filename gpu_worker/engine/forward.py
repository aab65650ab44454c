"""One forward pass over a packed row of tokens, mixed adapters and all."""

import inspect
from functools import partial
from typing import Any

import numpy as np
import torch

from gpu_worker.engine import pooling
from gpu_worker.engine.attention import STEP, KvCache, StepMetadata
from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.graphed import GraphedDecode
from gpu_worker.engine.lora.linears import LORA
from gpu_worker.engine.lora.residency import Residency
from gpu_worker.engine.recorded import RecordedDecode, record
from gpu_worker.engine.schedule import PENDING, Chunk
from gpu_worker.engine.torch_attention import PrefillSpan
from gpu_worker.engine.unread import Unread
from kernels.grouped_lora import LoraKernel
from kernels.transfer import to_device


class Forward:
    """Turns chunks into tensors, runs the model, returns logits of the rows that sample."""

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        cache: KvCache,
        kernel: LoraKernel[Any, Any],
        adapters: Residency[Any],
    ) -> None:
        self.model = model
        self.device = device
        self.cache = cache
        self.windows_seen: dict[int, int | None] = {}  # of the latest step, by layer
        self._kernel = kernel
        self._adapters = adapters
        self._hidden = pooling.HiddenStates(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.decode: RecordedDecode | GraphedDecode | None = None  # used where it is set
        self.row_by_row = False  # attention treats each token of a prompt as a decode step does

    @torch.inference_mode()
    def record_decode(
        self, rows: int, most_blocks: int, *, adapters: bool = True
    ) -> RecordedDecode | None:
        """Record steps of one token a sequence, for up to `rows` of them, where it is possible."""
        LORA.kernel = self._kernel if adapters else None
        self._kernel.begin([], [])
        try:
            return record(self._run, self.cache, rows, most_blocks)
        finally:
            LORA.kernel = None

    def graph_decode(self, rows: int, context: int, vocabulary: int) -> GraphedDecode:
        """The same for a GPU, by CUDA graphs."""
        kernel: Any = self._kernel
        return GraphedDecode(self._run, self.cache, kernel, rows, context, vocabulary)

    @torch.inference_mode()
    def __call__(
        self, chunks: list[Chunk], unread: Unread | None = None, *, every_chunk: bool = False
    ) -> torch.Tensor:
        """Logits [sampling chunks, vocabulary], in the order of the chunks; fills the KV cache.

        After them, those of the rows that score prompts (`Chunk.scored`). `unread` has the tokens
        that are PENDING.
        """
        counts = np.array([c.count for c in chunks])
        ends = counts.cumsum()
        decoding = ends[-1] == len(chunks)
        adapted = self._begin_adapters(chunks, ends, decoding)
        sampling = [every_chunk or c.samples for c in chunks]
        scoring = _scoring_rows(chunks, ends)
        if (
            decoding
            and not len(scoring)
            and not pooling.wanted(chunks)
            and self.decode is not None
            and self.decode.accepts(chunks)
        ):
            # Logits of all chunks: one of a prompt may be a single token, too.
            logits = self.decode(chunks, adapted, unread)
            return logits if all(sampling) else logits[self._tensor(np.flatnonzero(sampling))]
        positions = np.concatenate([np.arange(c.start, c.start + c.count) for c in chunks])
        STEP.metadata, STEP.cache = self._metadata(chunks, positions), self.cache
        LORA.kernel = self._kernel if adapted else None
        run = partial(
            self._run,
            self._ids(chunks, ends, unread)[None],
            self._tensor(positions)[None],
            self._tensor(np.concatenate([ends[sampling] - 1, scoring])),
        )
        try:
            if pooling.wanted(chunks):
                logits, hidden = self._hidden.of(run)
                pooling.pool(chunks, hidden)
            else:
                logits = run()
            self.windows_seen = STEP.metadata.windows
        finally:
            STEP.metadata, STEP.cache, LORA.kernel = None, None, None
        return logits

    def _ids(
        self, chunks: list[Chunk], ends: "np.ndarray[Any, Any]", unread: Unread | None
    ) -> torch.Tensor:
        tokens = [t for c in chunks for t in c.sequence.tokens[c.start : c.start + c.count]]
        ids = self._tensor(np.array(tokens))
        if unread is None or PENDING not in tokens:
            return ids
        rows = np.full(len(tokens), -1)
        for chunk, end in zip(chunks, ends.tolist(), strict=True):
            if tokens[end - 1] == PENDING:
                rows[end - 1] = unread.row_of[chunk.sequence]
        return unread.fill(ids, self._tensor(rows))

    def _run(self, ids: torch.Tensor, positions: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """ids, positions [1, tokens]; keep: the rows whose logits are wanted."""
        extra = {"logits_to_keep": keep} if self._keeps else {}
        result = self.model(input_ids=ids, position_ids=positions, use_cache=False, **extra)
        logits: torch.Tensor = result.logits[0]
        return logits if self._keeps else logits[keep]

    def _metadata(self, chunks: list[Chunk], positions: "np.ndarray[Any, Any]") -> StepMetadata:
        counts = [c.count for c in chunks]
        tables = [np.array(c.sequence.blocks) for c in chunks]
        block_of = np.concatenate(
            [
                t[np.arange(c.start, c.start + c.count) // BLOCK]
                for t, c in zip(tables, chunks, strict=True)
            ]
        )
        by_row = [c.count == 1 or self.row_by_row for c in chunks]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.flatnonzero(np.repeat(by_row, counts))
        width = max((len(t) for t, each in zip(tables, by_row, strict=True) if each), default=0)
        padded = np.zeros((len(rows), width), dtype=np.int32)
        for to, row in enumerate(np.repeat(np.arange(len(chunks)), counts)[rows]):
            padded[to, : len(tables[row])] = tables[row]
        meta = StepMetadata(
            write_slots=self._tensor(block_of * BLOCK + positions % BLOCK),
            decode_rows=self._tensor(rows),
            decode_tables=to_device(torch.from_numpy(padded), self.device),
            decode_lengths=self._tensor(positions[rows] + 1),
            only_decode=all(by_row),
        )
        spans = [
            ((int(starts[i]), counts[i], chunk.start), tables[i])
            for i, chunk in enumerate(chunks)
            if not by_row[i]
        ]
        if spans:
            self._add_prefills(meta, spans)
        return meta

    def _add_prefills(
        self, meta: StepMetadata, spans: "list[tuple[tuple[int, int, int], np.ndarray[Any, Any]]]"
    ) -> None:
        """spans: (first row, rows, position of the first) and the block table, by prompt."""
        kernels = self.cache.kernels
        if kernels is None or kernels.prefill_tiles is None:
            for (row, count, first), table in spans:
                slots = (table[:, None] * BLOCK + np.arange(BLOCK)).ravel()[: first + count]
                meta.prefills.append(PrefillSpan(row, row + count, first, self._tensor(slots)))
            return
        tables = np.zeros((len(spans), max(len(t) for _, t in spans)), dtype=np.int32)
        for row, (_, table) in zip(tables, spans, strict=True):
            row[: len(table)] = table
        tiles = np.array(kernels.prefill_tiles([span for span, _ in spans]), dtype=np.int32)
        meta.prefill_tables = to_device(torch.from_numpy(tables), self.device)
        meta.prefill_tiles = to_device(torch.from_numpy(tiles), self.device)

    def _begin_adapters(
        self, chunks: list[Chunk], ends: "np.ndarray[Any, Any]", decoding: bool
    ) -> bool:
        """Tell the kernel the segments of equal adapters, which the schedule put side by side.

        False: a base-only step.
        """
        names: list[str] = []
        spans: list[tuple[int, int]] = []
        for chunk, end in zip(chunks, ends.tolist(), strict=True):
            name = chunk.sequence.request.adapter
            if name is None:
                continue
            if names and names[-1] == name:
                spans[-1] = (spans[-1][0], end)
            else:
                names.append(name)
                spans.append((end - chunk.count, end))
        placed = [self._adapters[name] for name in names]
        self._kernel.begin(spans, placed, decoding=decoding)
        return bool(names)

    def _tensor(self, values: "np.ndarray[Any, Any]") -> torch.Tensor:
        return to_device(torch.from_numpy(values.astype(np.int64)), self.device)


def _scoring_rows(chunks: list[Chunk], ends: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The rows whose next token is the prompt's, where its log-probability is wanted."""
    counts = [len(c.scored) for c in chunks]
    if not any(counts):  # nearly always
        return np.array([], dtype=np.int64)
    spans = zip(chunks, ends.tolist(), counts, strict=True)
    return np.concatenate([end - c.count + np.arange(count) for c, end, count in spans])
