"""Batching and block allocation, as a simulation without a model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.engine.blocks import BLOCK, BlockPool, blocks_for
from gpu_worker.engine.request import Request, Sampling
from gpu_worker.engine.schedule import Schedule, Sequence

REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt tokens
        st.integers(1, 40),  # new tokens
        st.sampled_from([None, "a", "b", "c"]),
    ),
    min_size=1,
    max_size=20,
)


def sequences(requests: list[tuple[int, int, str | None]]) -> list[Sequence]:
    return [
        Sequence.begin(Request(str(i), [0] * prompt, Sampling(new), adapter))
        for i, (prompt, new, adapter) in enumerate(requests)
    ]


@settings(deadline=None)
@given(
    requests=REQUESTS,
    blocks=st.integers(9, 40),  # the largest request (100 tokens) fits in 7
    max_running=st.integers(1, 8),
    budget=st.integers(8, 64),
)
def test_all_finish_within_budget_and_no_block_has_two_owners(
    requests: list[tuple[int, int, str | None]], blocks: int, max_running: int, budget: int
) -> None:
    schedule = Schedule(BlockPool(blocks), max_running, budget)
    waiting = sequences(requests)
    for sequence in waiting:
        schedule.add(sequence)
    left = len(waiting)
    for _ in range(20_000):
        chunks = schedule.next()
        if not chunks:
            break
        assert sum(c.count for c in chunks) <= schedule.max_step_tokens
        assert len(schedule.running) <= max_running
        owned = [b for s in schedule.running for b in s.blocks]
        assert len(owned) == len(set(owned)) and 0 not in owned
        assert len(owned) + schedule.pool.free == schedule.pool.size
        adapters = [c.sequence.request.adapter for c in chunks]
        groups = [a for i, a in enumerate(adapters) if i == 0 or a != adapters[i - 1]]
        assert len(groups) == len(set(groups)), "an adapter's rows must be side by side"
        assert None not in groups[:-1], "base rows come last"
        for chunk in chunks:
            sequence = chunk.sequence
            assert chunk.start == sequence.computed
            assert blocks_for(chunk.start + chunk.count) <= len(sequence.blocks)
            samples = chunk.samples
            sequence.computed += chunk.count
            if samples:
                sequence.tokens.append(0)
                if sequence.position == sequence.request.sampling.max_tokens:
                    schedule.remove(sequence)
                    left -= 1
    assert left == 0
    assert schedule.pool.free == schedule.pool.size


def test_decode_goes_before_prefill() -> None:
    schedule = Schedule(BlockPool(100), 4, 16)
    old, new = sequences([(4, 5, None), (40, 5, None)])
    schedule.add(old)
    (first,) = schedule.next()
    old.computed = first.count
    old.tokens.append(1)
    schedule.add(new)
    counts = {c.sequence.request.id: c.count for c in schedule.next()}
    assert counts == {"0": 1, "1": 15}


def test_the_newest_is_preempted_and_the_oldest_advances() -> None:
    schedule = Schedule(BlockPool(4), 4, 64)  # three blocks for all
    old, new = sequences([(BLOCK, 40, None), (2 * BLOCK, 9, None)])
    for sequence in (old, new):
        schedule.add(sequence)
    for chunk in schedule.next():
        chunk.sequence.computed += chunk.count
        chunk.sequence.tokens.append(0)
    (chunk,) = schedule.next()
    assert chunk.sequence is old
    assert (new.blocks, new.computed, list(schedule.waiting)) == ([], 0, [new])


def test_a_resumed_request_goes_on_at_its_position() -> None:
    resumed = Sequence.begin(Request("r", [1, 2, 3], Sampling(10), None, [7, 8]))
    assert (resumed.position, resumed.pending) == (2, 5)


def test_a_pool_gives_all_or_nothing() -> None:
    pool = BlockPool(4)
    assert pool.take(4) is None
    assert pool.free == 3
