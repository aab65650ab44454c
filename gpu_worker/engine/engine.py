"""The engine: add requests, step, cancel. Continuous batching over mixed adapters.

On a GPU a step is planned and launched while the one before it still runs: what that one samples
stays on the device until the next is under way (`overlap`). So nothing that the host does between
steps (schedule, grammars, what the caller does with the outputs) keeps the GPU waiting, and a
sequence that has ended may be computed once more, for nothing.

engine = Engine.from_pretrained("path/to/model", adapters=Path("folder/of/adapters").joinpath)
for output in engine.stream(Request("r", prompt_ids, Sampling(100), adapter="pirate")): …
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_worker.engine.admission_probe import eager_logits
from gpu_worker.engine.allocation import allocate
from gpu_worker.engine.arriving import Arriving
from gpu_worker.engine.attention import bytes_per_token
from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.checks import check_request
from gpu_worker.engine.config import EngineConfig
from gpu_worker.engine.findings import Findings
from gpu_worker.engine.grammar import Grammars
from gpu_worker.engine.logprobs import PromptLogprobs
from gpu_worker.engine.lora.checkpoint import read
from gpu_worker.engine.lora.residency import Residency
from gpu_worker.engine.pooling import embedding
from gpu_worker.engine.request import (
    EngineError,
    Finish,
    GrammarRefused,
    InvalidRequest,
    Output,
    Request,
    TokenLogprobs,
    TooLong,
)
from gpu_worker.engine.sampling import Row, Sampled, sample
from gpu_worker.engine.schedule import PENDING, Chunk, Schedule, Sequence
from gpu_worker.engine.to_the_end import ToTheEnd
from gpu_worker.engine.unread import Unread
from gpu_worker.engine.weights import load, prepare
from kernels.transfer import to_device

_LOAD_WAIT_S = 0.005  # when all that is left to do waits for adapters or grammars


@dataclass(frozen=True, slots=True)
class _Launched:
    """A step whose tokens were not read yet."""

    sequences: list[Sequence]  # those that sampled
    sampled: Sampled
    prompts: PromptLogprobs | None
    stats: "StepStats"


@dataclass(frozen=True, slots=True)
class StepStats:
    """Of the step whose tokens came last."""

    sequences: int = 0
    tokens: int = 0
    adapters: tuple[str | None, ...] = ()  # distinct; None is the base model


class Engine(ToTheEnd):
    """One base model with any mix of its adapters. Not thread-safe: one owner.

    `locate` gives the folder of an adapter (PEFT format) by its name, which should be its digest:
    what is cached for a name is never looked at again.
    Raises ModelRefused when the model can't be loaded or isn't computed correctly.
    """

    def __init__(
        self,
        model_folder: Path,
        config: EngineConfig,
        locate: Callable[[str], Path],
        arriving: Arriving | None = None,
    ) -> None:
        """`arriving`: its weights are still coming into the folder. Raises NotArrived then, too."""
        super().__init__()
        loaded = load(
            model_folder,
            config.device,
            config.dtype,
            deterministic=config.deterministic,
            arriving=arriving,
        )
        findings = Findings(config.findings, model_folder, loaded.machine)
        expected = None
        if findings.layers is None:
            expected = eager_logits(loaded.model, loaded.vocabulary, loaded.machine.device)
        prepare(loaded)
        self.eos = loaded.eos
        self.context_length = loaded.context_length
        self.vocabulary = loaded.vocabulary
        kernel = loaded.machine.lora(
            loaded.groups,
            slots=config.max_adapters,
            max_rows=max(config.max_step_tokens, config.max_running),
        )
        self.adapters: Residency[Any] = Residency(
            lambda name: kernel.pack(read(Path(locate(name)), loaded.groups)),
            kernel.size,
            kernel.place,
            kernel.drop,
            slots=config.max_adapters,
            slot_bytes=kernel.slot_bytes,
            slab_bytes=int(config.adapter_cache_gib * 2**30),
        )
        self._forward, pool, self._later = allocate(
            loaded, config, kernel, self.adapters, expected, findings
        )
        self._schedule = Schedule(
            pool,
            config.max_running,
            config.max_step_tokens,
            self.adapters,
            prefix_cache=config.prefix_cache,
        )
        self._grammars = Grammars(model_folder, loaded.vocabulary, loaded.eos)
        self._compiling: dict[str, Sequence] = {}  # requests whose grammar is not ready
        self._overlap = loaded.machine.triton if config.overlap is None else config.overlap
        self._launched: _Launched | None = None
        self._closed = False
        self._draw = loaded.machine.kernels.sample_tokens if loaded.machine.kernels else None
        self.device = loaded.machine.device
        self.stats = StepStats()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, adapters: Callable[[str], Path] = Path, **config: Any
    ) -> "Engine":
        """An engine without the platform. `adapters`: a request's adapter name → its folder;
        `config`: fields of EngineConfig. Raises ModelRefused, and ValueError for a wrong field."""
        if not callable(adapters):
            raise ValueError("adapters must be a function: adapter name → its folder")
        return cls(Path(folder), EngineConfig(**config), adapters)

    @property
    def room(self) -> int:
        """How many more requests the batch has room for."""
        return self._schedule.room - len(self._compiling)

    @property
    def slots(self) -> int:
        """Requests that run at once, at most."""
        return self._schedule.max_running

    @property
    def load(self) -> int:
        """Requests in the engine."""
        return len(self._schedule) + len(self._compiling)

    @property
    def quiet(self) -> bool:
        """Nothing is under way: no step, and nothing is prepared."""
        return self._launched is None and not self.preparing

    @property
    def preparing(self) -> bool:
        """An adapter is being loaded, or a grammar compiled."""
        return bool(self._compiling) or self.adapters.loading

    def add(self, request: Request) -> None:
        """Queue a request, and begin to load its adapter and to compile its grammar.

        A request that would outgrow the KV cache ends there with "length". Raises TooLong or
        InvalidRequest; an adapter or a grammar that can't be served ends the request later, with an
        Output that says why.
        """
        check_request(request, self.vocabulary)
        if self._closed:
            raise RuntimeError("the engine is closed")
        if self.has(request.id):
            raise InvalidRequest(f"a request with the id {request.id!r} is in the engine")
        if not request.prompt:
            raise InvalidRequest("the prompt is empty")
        if len(request.prompt) >= self.capacity:
            raise TooLong(
                f"{len(request.prompt)} prompt tokens: this replica holds {self.capacity} tokens a "
                "request, the new ones included"
            )
        if request.adapter is not None:
            self.adapters.want(request.adapter)
        if request.sampling.grammar is not None:
            self._grammars.begin(request.id, request.sampling.grammar, request.produced)
            self._compiling[request.id] = Sequence.begin(request, self.capacity)
        else:
            self._schedule.add(Sequence.begin(request, self.capacity), time.monotonic())

    def cancel(self, request_id: str) -> Output | None:
        """End a request and free what it holds. None: it isn't here (any more)."""
        self._kept = [output for output in self._kept if output.request != request_id]
        sequence = self._find(request_id)
        if sequence is None:
            return None
        self._end(sequence)
        return Output(request_id, _known(sequence), [], "cancelled")

    def step(self, only: str | None = None) -> list[Output]:
        """Launch one batch, and give the tokens of the one before it (`overlap`) or of this one.

        A token for every sequence that is past its prompt; `only`: the others are paused.
        """
        self._later.go_on()
        outputs, self._kept = self._kept, []
        outputs += self._join() + self._refuse(self.adapters.poll())
        chunks = self._schedule.next(time.monotonic(), only)
        if not chunks:
            outputs += self._read()
            if not outputs and self.load:
                self.adapters.wait(_LOAD_WAIT_S)  # for an adapter, a slot or a grammar
            return outputs
        logits = self._forward(chunks, self._unread())
        outputs += self._read()  # the host works on these tokens while the device computes
        outputs += self._launch(chunks, logits)
        return outputs if self._overlap else outputs + self._read()

    def _launch(self, chunks: list[Chunk], logits: torch.Tensor) -> list[Output]:
        """Sample from a step's logits, for the sequences that have not ended meanwhile.

        Returns the ends of those whose grammar fails.
        """
        sampling = [c.sequence for c in chunks if c.samples]
        prompts = None
        if len(logits) > len(sampling):
            prompts = PromptLogprobs(chunks, logits[len(sampling) :])
            logits = logits[: len(sampling)]
        alive = [c for c in chunks if self._find(c.sequence.request.id) is c.sequence]
        self._schedule.done(alive)
        living = {c.sequence for c in alive}
        kept: list[int] = []
        rows: list[Row] = []
        sequences: list[Sequence] = []
        failed: list[Output] = []
        for index, sequence in enumerate(sampling):
            if sequence not in living:
                continue
            try:
                rows.append(self._row(sequence))
            except GrammarRefused as refused:
                failed.append(self._fail(sequence, refused))
                continue
            kept.append(index)
            sequences.append(sequence)
        if len(kept) < len(sampling):
            logits = logits[to_device(torch.tensor(kept, dtype=torch.long), logits.device)]
        sampled = sample(logits, rows, self._draw)
        for sequence in sequences:
            sequence.tokens.append(PENDING)
        self._launched = _Launched(sequences, sampled, prompts, _stats(chunks))
        return failed

    def _unread(self) -> Unread | None:
        if self._launched is None or not self._launched.sequences:
            return None
        rows = {sequence: row for row, sequence in enumerate(self._launched.sequences)}
        return Unread(self._launched.sampled.tokens, rows)

    def _read(self) -> list[Output]:
        """What the latest launched step has sampled; waits for it."""
        launched, self._launched = self._launched, None
        if launched is None:
            return []
        self.stats = launched.stats
        self._later.due = self._later.due or bool(launched.sequences)
        if launched.prompts is not None:
            launched.prompts.give()
        return [
            self._advance(sequence, token, logprobs)
            for sequence, token, logprobs in zip(
                launched.sequences, *launched.sampled.read(), strict=True
            )
            if self._find(sequence.request.id) is sequence  # not cancelled meanwhile
        ]

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that load adapters and compile grammars; wait for a launched step."""
        if self._launched is not None:
            self._launched.sampled.read()
            self._launched = None
        self._closed = True
        self.adapters.close()
        self._grammars.close()

    @property
    def capacity(self) -> int:
        """Tokens that one request may have, prompt and output together."""
        return min(self.context_length, self._schedule.pool.size * BLOCK)

    @property
    def kv_blocks(self) -> tuple[int, int]:
        """Those that requests hold, and how many there are."""
        pool = self._schedule.pool
        return pool.size - pool.free, pool.size

    @property
    def kv_bytes_per_token(self) -> int:
        cache = self._forward.cache
        return bytes_per_token(cache.shapes, cache.dtype)

    def has(self, request_id: str) -> bool:
        return self._find(request_id) is not None

    def _find(self, request_id: str) -> Sequence | None:
        return self._schedule.find(request_id) or self._compiling.get(request_id)

    def _join(self) -> list[Output]:
        """Requests whose grammar is ready join; those whose grammar is refused end."""
        outputs = []
        for request, sequence in list(self._compiling.items()):
            try:
                if self._grammars.ready(request):
                    del self._compiling[request]
                    self._schedule.add(sequence, time.monotonic())
            except GrammarRefused as refused:
                outputs.append(self._fail(sequence, refused))
        return outputs

    def _row(self, sequence: Sequence) -> Row:
        request = sequence.request
        return Row(
            request.sampling,
            sequence.position,
            sequence.tokens,
            len(request.prompt),
            self._grammars.allowed(request.id) if request.sampling.grammar else None,
            (*self.eos, *request.sampling.stop_ids),
        )

    def _advance(self, sequence: Sequence, token: int, logprobs: TokenLogprobs | None) -> Output:
        position = sequence.position - 1  # it is in `tokens`, PENDING
        sequence.tokens[-1] = token
        finish: Finish | None
        try:
            finish, error = self._finish(sequence, token), None
        except GrammarRefused as refused:
            finish, error = "error", refused
        if finish:
            self._end(sequence)
        known = None if logprobs is None else [logprobs]
        # A sequence that was resumed has none: they were given with its first token.
        prompt = sequence.prompt_logprobs if position == 0 and sequence.prompt_logprobs else None
        first = position == 0
        vector = embedding(sequence.pooled) if first and sequence.pooled is not None else None
        return Output(
            *(sequence.request.id, position, [token], finish, known, error, prompt),
            cached=sequence.cached if first else 0,
            embedding=vector,
            admitted=sequence.admitted if first else 0.0,
        )

    def _finish(self, sequence: Sequence, token: int) -> Finish | None:
        """Raises GrammarRefused where the end comes too early for the grammar."""
        request = sequence.request
        sampling = request.sampling
        ends = (token in self.eos and not sampling.ignore_eos) or token in sampling.stop_ids
        if sampling.grammar is not None:
            ended = self._grammars.accept(request.id, token, ends=token in self.eos)
            ends = ends or ended
        if ends:
            return "stop"
        return "length" if sequence.full else None

    def _refuse(self, adapters: dict[str, Any]) -> list[Output]:
        """End the requests whose adapter could not be loaded."""
        waiting = (*self._schedule.waiting, *self._compiling.values()) if adapters else ()
        hit = [s for s in waiting if s.request.adapter in adapters]
        return [self._fail(s, adapters[s.request.adapter or ""]) for s in hit]

    def _fail(self, sequence: Sequence, error: EngineError) -> Output:
        self._end(sequence)
        return Output(sequence.request.id, _known(sequence), [], "error", error=error)

    def _end(self, sequence: Sequence) -> None:
        if self._compiling.pop(sequence.request.id, None) is None:
            self._schedule.remove(sequence)
        if sequence.request.adapter is not None:
            self.adapters.unwant(sequence.request.adapter)
        if sequence.request.sampling.grammar is not None:
            self._grammars.end(sequence.request.id)


def _known(sequence: Sequence) -> int:
    """Output tokens that were given to the caller."""
    return sequence.position - (sequence.tokens[-1] == PENDING)


def _stats(chunks: list[Chunk]) -> StepStats:
    adapters = tuple(dict.fromkeys(c.sequence.request.adapter for c in chunks))
    return StepStats(len(chunks), sum(c.count for c in chunks), adapters)
