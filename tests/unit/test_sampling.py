"""Sampling: the number of a position is fixed by (seed, position); each option does its own."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.request import Sampling
from gpu_worker.engine.sampling import Row, sample, uniform


def row(position: int = 0, tokens: tuple[int, ...] = (), **sampling: Any) -> Row:
    return Row(Sampling(1, **sampling), position, tokens, 0)


def one(logits: torch.Tensor, each: Row) -> int:
    return sample(logits.clone(), [each]).read()[0][0]


@given(seed=st.integers(0, 2**63 - 1), position=st.integers(0, 10_000))
def test_uniform_is_in_range_and_repeatable(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1
    assert uniform(seed, position) == uniform(seed, position)


def test_uniform_is_evenly_spread_over_positions_and_seeds() -> None:
    for numbers in ([uniform(3, p) for p in range(4000)], [uniform(s, 3) for s in range(4000)]):
        counts = torch.histc(torch.tensor(numbers), bins=10, min=0, max=1)
        assert counts.min() > 320 and counts.max() < 480  # 400 ± 4 standard deviations


def test_rows_do_not_depend_on_their_neighbours() -> None:
    logits = torch.randn(6, 500, generator=torch.Generator().manual_seed(1))
    options: list[dict[str, Any]] = [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.1}]
    rows = [row(i, seed=i, temperature=0.9, **options[i % 4]) for i in range(5)] + [row()]
    together, _ = sample(logits.clone(), rows).read()
    assert together == [one(logits[i : i + 1], rows[i]) for i in range(6)]


def test_greedy_is_argmax() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert sample(logits, [row(), row(5)]).read()[0] == [1, 0]


def test_draws_follow_the_distribution() -> None:
    """Over more values than one run of the inverse distribution function has."""
    logits = torch.full((1, 1000), -30.0)
    likely = {3: 0.5, 400: 0.3, 999: 0.2}
    for token, p in likely.items():
        logits[0, token] = torch.tensor(p).log()
    drawn = [one(logits, row(seed=s, temperature=1.0)) for s in range(2000)]
    for token, p in likely.items():
        assert abs(drawn.count(token) / 2000 - p) < 0.05
    assert set(drawn) == set(likely)


def draws(sampling: dict[str, Any], probabilities: list[float], n: int = 2000) -> set[int]:
    logits = torch.tensor(probabilities).log()[None]
    return {one(logits, row(seed=s, **sampling)) for s in range(n)}


def test_top_k_top_p_and_min_p_keep_what_they_should() -> None:
    p = [0.5, 0.3, 0.15, 0.05]
    assert draws({"temperature": 1.0}, p) == {0, 1, 2, 3}
    assert draws({"temperature": 1.0, "top_k": 2}, p) == {0, 1}
    assert draws({"temperature": 1.0, "top_p": 0.7}, p) == {0, 1}
    assert draws({"temperature": 1.0, "top_p": 0.4}, p) == {0}
    assert draws({"temperature": 1.0, "min_p": 0.2}, p) == {0, 1, 2}


def test_top_p_is_right_when_it_needs_more_than_the_first_guess() -> None:
    flat = torch.zeros(1, 5000)
    tokens = {one(flat, row(seed=s, temperature=1.0, top_p=0.99)) for s in range(1500)}
    assert len(tokens) > 1200  # of 4950 kept tokens, not of the first few


@pytest.mark.parametrize(
    ("options", "tokens", "expected"),
    [
        ({"repetition_penalty": 2.0}, (0,), 1),
        ({"presence_penalty": 1.5}, (0,), 1),
        ({"frequency_penalty": 0.3}, (0,), 0),
        ({"frequency_penalty": 0.3}, (0, 0, 0, 0), 1),
        ({"logit_bias": {2: 100.0}}, (), 2),
        ({"logit_bias": {0: -100.0}}, (), 1),
    ],
)
def test_penalties_and_bias(
    options: dict[str, Any], tokens: tuple[int, ...], expected: int
) -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    assert one(logits, row(tokens=tokens, **options)) == expected


def test_penalties_on_the_output_do_not_look_at_the_prompt() -> None:
    each = Row(Sampling(1, presence_penalty=2.0), 0, [0, 0], prompt_length=2)
    assert one(torch.tensor([[3.0, 2.0]]), each) == 0


def test_min_tokens_forbids_the_end_and_a_grammar_allows_only_its_own() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    assert one(logits, Row(Sampling(9, min_tokens=2), 1, [], 0, ends=(0,))) == 1
    assert one(logits, Row(Sampling(9, min_tokens=2), 2, [], 0, ends=(0,))) == 0
    allowed = torch.tensor([False, False, True])
    assert one(logits, Row(Sampling(9), 0, [], 0, allowed)) == 2


@pytest.mark.parametrize(
    "each",
    [
        row(temperature=1.0, top_p=1e-50),
        row(temperature=1.0, min_p=1.0, top_k=1),
        Row(Sampling(9, min_tokens=2), 0, [], 0, torch.tensor([True, False, False]), ends=(0,)),
        Row(Sampling(9, temperature=1.0), 0, [], 0, torch.zeros(3, dtype=torch.bool)),
    ],
)
def test_there_is_always_a_token(each: Row) -> None:
    assert one(torch.tensor([[3.0, 2.0, 1.0]]), each) == 0 or each.sampling.temperature
    broken = torch.tensor([[float("nan"), float("inf"), 1.0]])
    assert one(broken, each) in (0, 1, 2)


def test_logprobs_are_of_the_chosen_and_of_the_likeliest() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    (token,), (known,) = sample(logits, [row(logprobs=2, logit_bias={2: 100.0})]).read()
    assert known is not None and token == 2
    assert abs(known.chosen) < 1e-4 and [t for t, _ in known.top] == [2, 0]
