"""`deterministic`: bit for bit the same, alone or in company, in one piece or in many."""

import random
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import ModelRefused, Request, Sampling
from tests.conftest import ADAPTERS
from tests.integration.test_admission_probe import LLAMA, save
from tests.integration.test_lora_formats import make_adapter


def logprobs(engine: Engine, requests: list[Request]) -> dict[str, list[tuple[int, float]]]:
    """Tokens with the exact log-probability of each: equal only if every logit is."""
    found: dict[str, list[tuple[int, float]]] = {request.id: [] for request in requests}
    waiting = list(requests)
    while waiting or engine.load:
        if waiting:
            engine.add(waiting.pop(0))
        for output in engine.step():
            for token, known in zip(output.tokens, output.logprobs or (), strict=True):
                found[output.request].append((token, known.chosen))
    return found


def make(model: Path, device: str = "cpu", **config: Any) -> Engine:
    locate = ADAPTERS.joinpath  # of a folder from the root it is that folder
    return Engine.from_pretrained(model, locate, device=device, deterministic=True, **config)


def check(alone: Engine, small: Engine, requests: list[Request]) -> None:
    """Company, chunks, preemption and resumption change nothing."""
    expected = {r.id: logprobs(alone, [r])[r.id] for r in requests}
    assert logprobs(small, requests) == expected
    for request in requests[:3]:
        produced = [token for token, _ in expected[request.id][:5]]
        resumed = Request(request.id, request.prompt, request.sampling, request.adapter, produced)
        assert logprobs(alone, [resumed])[request.id] == expected[request.id][len(produced) :]
    for engine in (alone, small):
        engine.close()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_on_a_cpu(smollm2: Path, dtype: str) -> None:
    chance = random.Random(3)
    requests = [
        Request(
            f"{i}",
            [chance.randrange(10, 40_000) for _ in range(chance.choice((3, 40, 90)))],
            Sampling(12, seed=i, temperature=chance.choice((0.0, 1.0)), logprobs=0),
            chance.choice((None, "pirate", "json")),
        )
        for i in range(9)
    ]
    alone = make(smollm2, dtype=dtype)
    small = make(smollm2, dtype=dtype, max_step_tokens=24, max_running=4, kv_cache_gib=0.01)
    check(alone, small, requests)


def test_on_a_gpu(tmp_path: Path) -> None:
    """By Triton's interpreter. float16 is where another order of additions shows at once."""
    model = save("llama", LLAMA, tmp_path / "model")
    adapter = str(make_adapter(model, tmp_path / "adapter", 0, r=20, target_modules="all-linear"))
    requests = [
        Request("0", list(range(3, 40)), Sampling(6, logprobs=0), adapter),
        Request("1", list(range(30, 39)), Sampling(6, 1, 1.0, logprobs=0)),
        Request("2", [5], Sampling(6, 2, 1.0, logprobs=0), adapter),
    ]
    options: dict[str, Any] = {"device": "interpreter", "dtype": "float16", "kv_cache_gib": 0.01}
    alone = make(model, **options)
    small = make(model, **options, max_step_tokens=16, max_running=2)
    check(alone, small, requests)


def test_where_it_cannot_be_had_it_is_refused(smollm2: Path) -> None:
    with pytest.raises(ModelRefused, match="deterministic"):
        make(smollm2, dtype="bfloat16")
