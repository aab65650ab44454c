"""What runs in the next step. Decode first, then prompts in chunks, under a token budget. No torch.

Waiting requests are taken in the order of fairness; every fourth is the one that has waited
longest, if that is long, so that nobody waits for ever. One whose adapter isn't in a slot lets
others pass, and the gate sees to it that its turn comes. Blocks are taken as tokens need them,
after what the prefix cache has. When the pool is empty the newest running sequence gives its blocks
back and later goes on from what is still cached (recompute preemption): the oldest advances.
Background sequences come after all others, and give way to them in the same manner.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gpu_worker.engine.blocks import BLOCK, BlockPool, blocks_for, chain_hash, root_hash
from gpu_worker.engine.fairness import VirtualCounters
from gpu_worker.engine.request import Request, TokenLogprobs

AGED_S = 20.0  # a long wait
AGED_EVERY = 4  # admissions, one of which is for the longest wait; more often, and a tenant with a
# long queue, all of it old, would push the others aside
PENDING = -1  # the last token of a sequence, while only the device knows it


class AdapterGate(Protocol):
    """Which adapters may run now. A running sequence holds its adapter."""

    def acquire(self, adapter: str, now: float) -> bool:
        """Hold it for one sequence. False: it isn't in a slot, or gives its slot up."""

    def release(self, adapter: str) -> None: ...

    def overdue(self, now: float) -> set[str]:
        """Adapters whose running sequences must make room for others now."""


class NoAdapters:
    """A gate for engines without adapters, and for tests."""

    def acquire(self, adapter: str, now: float) -> bool:
        return True

    def release(self, adapter: str) -> None: ...

    def overdue(self, now: float) -> set[str]:
        return set()


@dataclass(eq=False, slots=True)
class Sequence:
    """A request in the engine: its tokens so far and which of them are in the KV cache."""

    request: Request
    tokens: list[int] = field(default_factory=list)  # prompt + output; the last may be PENDING
    limit: int = 1 << 62  # of tokens: it ends there
    computed: int = 0  # tokens whose keys and values are cached
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)  # of the full blocks of `tokens`
    running: bool = False  # the schedule's
    charged: bool = False  # its prompt is in its tenant's counter
    cached: int = 0  # tokens that were in the cache when it was first admitted
    since: float = 0.0  # when it began to wait
    admitted: float = 0.0  # when it first ran
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)  # from prompt[1] on
    pooled: Any = None  # a tensor: its prompt's hidden states, as far as they are computed

    @classmethod
    def begin(cls, request: Request, most: int) -> "Sequence":
        """`most`: tokens that any request may have. One more than there are is always wanted."""
        tokens = [*request.prompt, *request.produced]
        limit = min(most, len(request.prompt) + request.sampling.max_tokens)
        return cls(request, tokens, max(limit, len(tokens) + 1))

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def full(self) -> bool:
        """No further token is wanted, though the last may not be known yet."""
        return len(self.tokens) >= self.limit

    @property
    def position(self) -> int:
        """Output index of the next token."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def scores_prompt(self) -> bool:
        """The log-probabilities of its prompt are wanted and not all known."""
        return self.request.sampling.prompt_logprobs is not None and self.position == 0

    @property
    def reusable(self) -> int:
        """Tokens that need not be computed if they are cached: the last one gives the next one,
        and a row that scores the prompt must have done so."""
        if self.request.sampling.pooling == "mean":
            return 0
        known = len(self.tokens) - 1
        return min(known, len(self.prompt_logprobs)) if self.scores_prompt else known

    def hash_until(self, tokens: int) -> list[bytes]:
        """Hashes of the full blocks within the first `tokens` tokens, all of them known."""
        while (len(self.hashes) + 1) * BLOCK <= tokens:
            at = len(self.hashes) * BLOCK
            parent = (
                self.hashes[-1]
                if self.hashes
                else root_hash(self.request.adapter, self.request.tenant)
            )
            self.hashes.append(chain_hash(parent, self.tokens[at : at + BLOCK]))
        return self.hashes[: tokens // BLOCK]


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

    @property
    def scored(self) -> list[int]:
        """The prompt's tokens after its first rows, where their log-probabilities are wanted."""
        if not self.sequence.scores_prompt:
            return []
        return self.sequence.request.prompt[self.start + 1 : self.start + self.count + 1]


class _Queue(NamedTuple):
    background: bool
    tenant: str


def _queue(sequence: Sequence) -> _Queue:
    return _Queue(sequence.request.background, sequence.request.tenant)


class Schedule:
    """Waiting and running sequences. `next` says what to compute; `done` is told that it was."""

    def __init__(
        self,
        pool: BlockPool,
        max_running: int,
        max_step_tokens: int,
        gate: AdapterGate | None = None,
        *,
        prefix_cache: bool = True,
    ) -> None:
        self.pool = pool
        self.max_running = max_running
        self.max_step_tokens = max(max_step_tokens, max_running)
        self.running: list[Sequence] = []  # oldest first
        self._gate = gate or NoAdapters()
        self._prefix_cache = prefix_cache
        # By tenant, never empty; background sequences have queues of their own.
        self._queues: dict[_Queue, deque[Sequence]] = {}
        self._counters = VirtualCounters()
        self._by_id: dict[str, Sequence] = {}
        self._admitted = 0

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def waiting(self) -> Iterator[Sequence]:
        return (s for queue in self._queues.values() for s in queue)

    def add(self, sequence: Sequence, now: float = 0.0) -> None:
        sequence.since = now
        tenant = sequence.request.tenant
        active = {s.request.tenant for s in (*self.running, *self.waiting)}
        if tenant not in active:
            self._counters.arrive(tenant, active)
        self._by_id[sequence.request.id] = sequence
        self._queues.setdefault(_queue(sequence), deque()).append(sequence)

    @property
    def room(self) -> int:
        """How many more it takes. Background ones are in nobody's way, up to a second batch."""
        foreground = sum(not s.request.background for s in self._by_id.values())
        return min(self.max_running - foreground, 2 * self.max_running - len(self))

    def find(self, request_id: str) -> Sequence | None:
        return self._by_id.get(request_id)

    def remove(self, sequence: Sequence) -> None:
        """The sequence has ended: free what it holds."""
        del self._by_id[sequence.request.id]
        if sequence.running:
            self._stop(sequence)
        else:
            self._leave_queue(sequence)

    def next(self, now: float = 0.0, only: str | None = None) -> list[Chunk]:
        """Chunks for one step, grouped by adapter with base rows last; empty when idle.

        `only`: a request that runs alone.
        """
        self._yield_slots(now)
        if only is None:
            self._give_way()
        chunks: list[Chunk] = []
        budget = self.max_step_tokens
        chosen = [s for s in self.running if only is None or s.request.id == only]
        decoding = [s for s in chosen if s.pending == 1]
        prefilling = [s for s in chosen if s.pending > 1]
        for sequence in (*decoding, *prefilling):
            if sequence.full or not sequence.running:  # preempted by an older one just now
                continue
            # A long prompt leaves half of what is left to others that have a prompt to compute.
            shared = len(prefilling) > 1 or bool(self._queues)
            share = max(BLOCK, budget // 2) if shared and sequence.pending > 1 else budget
            count = min(sequence.pending, share, budget)
            if count and self._make_room(sequence, count, only):
                chunks.append(Chunk(sequence, sequence.computed, count))
                budget -= count
        # A sequence that was preempted after its chunk was planned is not computed.
        chunks = [c for c in chunks if c.sequence.running]
        admitted = self._admit(budget, now, only)
        chunks = [c for c in chunks if c.sequence.running] + admitted
        chunks.sort(key=lambda c: (c.sequence.request.adapter is None, c.sequence.request.adapter))
        return chunks

    def done(self, chunks: list[Chunk]) -> None:
        """The chunks are computed, or will be before what `next` gives then: their full blocks may
        be shared, their tenants are charged. Nothing is PENDING in them any more."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.start + chunk.count
            if chunk.samples:
                self._counters.charge(sequence.request.tenant, outputs=1)
            if self._prefix_cache:
                first = chunk.start // BLOCK
                hashes = sequence.hash_until(sequence.computed)
                for index in range(first, len(hashes)):
                    self.pool.name(sequence.blocks[index], hashes[index])

    def _admit(self, budget: int, now: float, only: str | None) -> list[Chunk]:
        chunks: list[Chunk] = []
        if only is not None and only in self._by_id and not self._by_id[only].running:
            while len(self.running) >= self.max_running:  # those that are paused give way
                self._preempt(self.running[-1])
        if not budget or len(self.running) >= self.max_running:
            return chunks  # the usual case under load: the queues aren't even looked at
        for sequence in self._in_turn(now) if only is None else list(self.waiting):
            if not budget or len(self.running) >= self.max_running:
                break
            if sequence.full or only not in (None, sequence.request.id):
                continue
            adapter = sequence.request.adapter
            if adapter is not None and not self._gate.acquire(adapter, now):
                continue
            count = self._reserve(sequence, budget)
            while count == 0 and (newest := self._gives_way_to(sequence, only)) is not None:
                self._preempt(newest)
                count = self._reserve(sequence, budget)
            if count == 0:  # no blocks: nobody behind it may take those that come free
                if adapter is not None:
                    self._gate.release(adapter)
                break
            self._leave_queue(sequence)
            self._admitted += 1
            sequence.admitted = sequence.admitted or now
            self.running.append(sequence)
            sequence.running = True
            chunks.append(Chunk(sequence, sequence.computed, count))
            budget -= count
        return chunks

    def _in_turn(self, now: float) -> Iterator[Sequence]:
        """Waiting sequences, who comes first first; charges made meanwhile count."""
        # Not before all others run: they would only give way again.
        background = all(queue.background for queue in self._queues)
        here = {q.tenant: deque(s) for q, s in self._queues.items() if q.background == background}
        yield from self._fairly(here, now)

    def _fairly(self, queues: dict[str, deque[Sequence]], now: float) -> Iterator[Sequence]:
        while queues:
            tenant = self._counters.least_served(queues)
            if self._admitted % AGED_EVERY == AGED_EVERY - 1:
                oldest = min(queues, key=lambda tenant: queues[tenant][0].since)
                tenant = oldest if now - queues[oldest][0].since > AGED_S else tenant
            yield queues[tenant].popleft()
            if not queues[tenant]:
                del queues[tenant]

    def _reserve(self, sequence: Sequence, budget: int) -> int:
        """Blocks for a sequence's first chunk: shared ones first. How many tokens; 0: no room."""
        shared: list[int] = []
        if self._prefix_cache:
            shared = self.pool.find(sequence.hash_until(sequence.reusable))
        cached = len(shared) * BLOCK
        count = min(len(sequence.tokens) - cached, budget)
        self.pool.share(shared)
        fresh = self.pool.take(blocks_for(cached + count) - len(shared))
        if fresh is None:
            self.pool.give_back(shared)
            return 0
        sequence.blocks = shared + fresh
        sequence.computed = cached
        if not sequence.charged:  # work that a preemption repeats isn't its tenant's fault
            sequence.charged = True
            sequence.cached = cached
            inputs = len(sequence.tokens) - cached
            self._counters.charge(sequence.request.tenant, inputs=inputs)
        return count

    def _make_room(self, sequence: Sequence, count: int, only: str | None) -> bool:
        """Blocks for `count` more tokens of a running sequence; newer ones give way, or all others
        if it runs alone."""
        needed = blocks_for(sequence.computed + count) - len(sequence.blocks)
        while (taken := self.pool.take(max(0, needed))) is None:
            paused = [s for s in self.running if only not in (None, s.request.id)]
            newest = (paused or self._background() or self.running)[-1]
            self._preempt(newest)
            if newest is sequence:
                return False
        sequence.blocks += taken
        return True

    def _background(self) -> list[Sequence]:
        """Those that run, oldest first."""
        return [s for s in self.running if s.request.background]

    def _give_way(self) -> None:
        """Background sequences to others that wait, where the batch is full."""
        if len(self.running) < self.max_running:
            return
        waiting = sum(len(each) for queue, each in self._queues.items() if not queue.background)
        if not waiting:
            return
        for sequence in self._background()[: -waiting - 1 : -1]:
            self._preempt(sequence)

    def _gives_way_to(self, sequence: Sequence, only: str | None) -> Sequence | None:
        """Who must give its blocks to one that is admitted, if anybody."""
        if only and self.running:  # those that are paused
            return self.running[-1]
        background = [] if sequence.request.background else self._background()
        return background[-1] if background else None

    def _yield_slots(self, now: float) -> None:
        overdue = self._gate.overdue(now)
        if overdue:
            for sequence in [s for s in self.running[::-1] if s.request.adapter in overdue]:
                self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self._stop(sequence)
        self._queues.setdefault(_queue(sequence), deque()).appendleft(sequence)

    def _leave_queue(self, sequence: Sequence) -> None:
        queue = self._queues[_queue(sequence)]
        queue.remove(sequence)
        if not queue:
            del self._queues[_queue(sequence)]

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        sequence.running = False
        self.pool.give_back(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
        if sequence.request.adapter is not None:
            self._gate.release(sequence.request.adapter)
