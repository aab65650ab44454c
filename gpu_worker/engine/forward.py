"""One forward pass over a packed row of tokens, mixed adapters and all."""

import inspect
from collections.abc import Callable

import torch

from gpu_worker.engine.attention import STEP, KvCache, PrefillSpan, StepMetadata
from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.lora.linears import LORA, AdapterRows
from gpu_worker.engine.lora.slots import ResidentAdapter
from gpu_worker.engine.schedule import Chunk


class Forward:
    """Turns chunks into tensors, runs the model, returns logits of the rows that sample."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.cache = KvCache(0)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def __call__(
        self, chunks: list[Chunk], adapter: Callable[[str], ResidentAdapter]
    ) -> torch.Tensor:
        """Logits [sampling chunks, vocabulary], in the order of the chunks; fills the KV cache."""
        ids: list[int] = []
        positions: list[int] = []
        samples: list[int] = []
        for chunk in chunks:
            end = chunk.start + chunk.count
            ids += chunk.sequence.tokens[chunk.start : end]
            positions += range(chunk.start, end)
            if chunk.samples:
                samples.append(len(ids) - 1)
        keep = self._tensor(samples)
        STEP.metadata, STEP.cache = self._metadata(chunks), self.cache
        LORA.rows = _adapter_rows(chunks, adapter)
        try:
            result = self.model(
                input_ids=self._tensor(ids)[None],
                position_ids=self._tensor(positions)[None],
                use_cache=False,
                **({"logits_to_keep": keep} if self._keeps else {}),
            )
        finally:
            STEP.metadata, STEP.cache, LORA.rows = None, None, []
        logits: torch.Tensor = result.logits[0]
        return logits if self._keeps else logits[keep]

    def _metadata(self, chunks: list[Chunk]) -> StepMetadata:
        write: list[torch.Tensor] = []
        decode_rows: list[int] = []
        contexts: list[torch.Tensor] = []
        prefills: list[PrefillSpan] = []
        row = 0
        for chunk in chunks:
            length = chunk.start + chunk.count
            blocks = torch.tensor(chunk.sequence.blocks, dtype=torch.long)
            slots = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()[:length]
            write.append(slots[chunk.start :])
            if chunk.count == 1:
                decode_rows.append(row)
                contexts.append(slots)
            else:
                span = PrefillSpan(row, row + chunk.count, chunk.start, slots.to(self.device))
                prefills.append(span)
            row += chunk.count
        padded = (
            torch.nn.utils.rnn.pad_sequence(contexts, batch_first=True)
            if contexts
            else torch.zeros(0, 0, dtype=torch.long)
        )
        return StepMetadata(
            write_slots=torch.cat(write).to(self.device),
            decode_rows=self._tensor(decode_rows),
            decode_slots=padded.to(self.device),
            decode_lengths=self._tensor([len(c) for c in contexts]),
            prefills=prefills,
        )

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)


def _adapter_rows(
    chunks: list[Chunk], adapter: Callable[[str], ResidentAdapter]
) -> list[AdapterRows]:
    """Segments of rows by adapter; the schedule has put equal adapters side by side."""
    segments: list[AdapterRows] = []
    row = 0
    for chunk in chunks:
        name = chunk.sequence.request.adapter
        end = row + chunk.count
        if name is not None:
            if segments and segments[-1].name == name:
                segments[-1] = segments[-1]._replace(end=end)
            else:
                segments.append(AdapterRows(name, row, end, adapter(name).weights))
        row = end
    return segments
