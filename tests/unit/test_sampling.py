"""Sampling: the number of a position is fixed by (seed, position)."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.request import Sampling
from gpu_worker.engine.sampling import sample, uniform


@given(seed=st.integers(0, 2**63 - 1), position=st.integers(0, 10_000))
def test_uniform_is_in_range_and_repeatable(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1
    assert uniform(seed, position) == uniform(seed, position)


def test_uniform_is_evenly_spread_over_positions_and_seeds() -> None:
    for numbers in ([uniform(3, p) for p in range(4000)], [uniform(s, 3) for s in range(4000)]):
        counts = torch.histc(torch.tensor(numbers), bins=10, min=0, max=1)
        assert counts.min() > 320 and counts.max() < 480  # 400 ± 4 standard deviations


def test_rows_do_not_depend_on_their_neighbours() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    rows = [(Sampling(1, seed=i, temperature=0.9, top_p=0.8), i) for i in range(5)]
    together = sample(logits, rows)
    assert together == [sample(logits[i : i + 1], rows[i : i + 1])[0] for i in range(5)]


def test_greedy_is_argmax() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert sample(logits, [(Sampling(1), 0), (Sampling(1), 5)]) == [1, 0]


def draws(sampling: dict[str, float | int], probabilities: list[float], n: int = 2000) -> set[int]:
    logits = torch.tensor(probabilities).log()[None]
    return {sample(logits, [(Sampling(1, seed=s, **sampling), 0)])[0] for s in range(n)}  # type: ignore[arg-type]


def test_top_k_top_p_and_min_p_keep_what_they_should() -> None:
    p = [0.5, 0.3, 0.15, 0.05]
    assert draws({"temperature": 1.0}, p) == {0, 1, 2, 3}
    assert draws({"temperature": 1.0, "top_k": 2}, p) == {0, 1}
    assert draws({"temperature": 1.0, "top_p": 0.7}, p) == {0, 1}
    assert draws({"temperature": 1.0, "top_p": 0.4}, p) == {0}
    assert draws({"temperature": 1.0, "min_p": 0.2}, p) == {0, 1, 2}


def test_top_p_is_right_when_it_needs_more_than_the_first_guess() -> None:
    flat = torch.zeros(1, 5000)
    tokens = {
        sample(flat, [(Sampling(1, seed=s, temperature=1.0, top_p=0.99), 0)])[0]
        for s in range(1500)
    }
    assert len(tokens) > 1200  # of 4950 kept tokens, not of the first 512
