"""What runs in the next step: decode first, then prompts in chunks, under a token budget. No torch.

Blocks are taken as tokens need them. When the pool is empty the newest running sequence gives its
blocks back and later computes them again (recompute preemption), so the oldest always advances.
"""

from collections import deque
from dataclasses import dataclass, field

from gpu_worker.engine.blocks import BlockPool, blocks_for
from gpu_worker.engine.request import Request


@dataclass(eq=False, slots=True)
class Sequence:
    """A request in the engine: its tokens so far and which of them are in the KV cache."""

    request: Request
    tokens: list[int] = field(default_factory=list)  # prompt + output
    computed: int = 0  # tokens whose keys and values are cached
    blocks: list[int] = field(default_factory=list)

    @classmethod
    def begin(cls, request: Request) -> "Sequence":
        return cls(request, [*request.prompt, *request.produced])

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def position(self) -> int:
        """Output index of the next token."""
        return len(self.tokens) - len(self.request.prompt)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a sequence from `start` on, computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the sequence's end, so that a token is sampled."""
        return self.start + self.count == len(self.sequence.tokens)


class Schedule:
    """Waiting and running sequences. `next` says what to compute; the caller reports back."""

    def __init__(self, pool: BlockPool, max_running: int, max_step_tokens: int) -> None:
        self.pool = pool
        self.max_running = max_running
        self.max_step_tokens = max(max_step_tokens, max_running)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def find(self, request_id: str) -> Sequence | None:
        everyone = (*self.running, *self.waiting)
        return next((s for s in everyone if s.request.id == request_id), None)

    def remove(self, sequence: Sequence) -> None:
        """The sequence has ended: free its blocks."""
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def next(self) -> list[Chunk]:
        """Chunks for one step, grouped by adapter with base rows last; empty when idle."""
        chunks: list[Chunk] = []
        budget = self.max_step_tokens
        decoding = [s for s in self.running if s.pending == 1]
        prefilling = [s for s in self.running if s.pending > 1]
        for sequence in (*decoding, *prefilling):
            if sequence not in self.running:  # preempted by an older one just now
                continue
            count = min(sequence.pending, budget)
            if count and self._make_room(sequence, count, preempt=True):
                chunks.append(Chunk(sequence, sequence.computed, count))
                budget -= count
        # A sequence that was preempted after its chunk was planned is not computed.
        chunks = [c for c in chunks if c.sequence in self.running]
        while self.waiting and budget and len(self.running) < self.max_running:
            sequence = self.waiting[0]
            count = min(sequence.pending, budget)
            if not self._make_room(sequence, count, preempt=False):
                break
            self.running.append(self.waiting.popleft())
            chunks.append(Chunk(sequence, 0, count))
            budget -= count
        chunks.sort(key=lambda c: (c.sequence.request.adapter is None, c.sequence.request.adapter))
        return chunks

    def _make_room(self, sequence: Sequence, count: int, *, preempt: bool) -> bool:
        """Blocks for `count` more tokens. With `preempt`, newer sequences give way."""
        needed = blocks_for(sequence.computed + count) - len(sequence.blocks)
        while (taken := self.pool.take(max(0, needed))) is None:
            if not preempt:
                return False
            newest = self.running.pop()
            self._release(newest)
            self.waiting.appendleft(newest)
            if newest is sequence:
                return False
        sequence.blocks += taken
        return True

    def _release(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
