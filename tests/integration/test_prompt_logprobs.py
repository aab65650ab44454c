"""Log-probabilities of a prompt equal transformers + PEFT, however the prompt was computed."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Output, Request, Sampling
from tests.integration.test_admission_probe import LLAMA, save
from tests.integration.test_lora_formats import make_adapter

PROMPTS = [[(7 * i + 11 * j) % 97 for i in range(length)] for j, length in enumerate((70, 41, 2))]
PATHS = [
    {"device": "cpu"},
    {"device": "cpu", "overlap": True},
    {"device": "interpreter"},
    {"device": "cpu", "kv_cache_gib": 0.00005},  # sequences are preempted
    {"device": "cpu", "kv_cache_gib": 0.00005, "overlap": True},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", LLAMA, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model, tmp_path_factory.mktemp("adapter"), 0, r=8)


def run(engine: Engine, requests: list[Request]) -> dict[str, list[Output]]:
    outputs: dict[str, list[Output]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.load:
        for output in engine.step():
            outputs[output.request].append(output)
    return outputs


def expected(model: Path, adapter: Path | None, prompt: list[int]) -> torch.Tensor:
    """[prompt - 1, vocabulary]"""
    reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        reference = PeftModel.from_pretrained(reference, adapter)
    with torch.inference_mode():
        return torch.log_softmax(reference(torch.tensor([prompt])).logits[0, :-1], dim=-1)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_equal_to_peft(model: Path, adapter: Path, path: dict[str, Any]) -> None:
    requests = [
        Request(
            *(f"{number} {name}", prompt, Sampling(4, prompt_logprobs=3, ignore_eos=True)),
            adapter=str(name) if name else None,
        )
        for number, prompt in enumerate(PROMPTS)
        for name in (None, adapter)
    ]
    company = [Request("plain", PROMPTS[0], Sampling(9, ignore_eos=True))]
    options: dict[str, Any] = {"dtype": "float32", "max_step_tokens": 32, "kv_cache_gib": 0.01}
    with Engine.from_pretrained(model, **options | path) as engine:
        run(engine, company)  # its blocks are in the prefix cache
        outputs = run(engine, company + requests)
    assert all(output.prompt_logprobs is None for output in outputs["plain"])
    for request in requests:
        first, *others = outputs[request.id]
        assert first.prompt_logprobs is not None and len(others) == 3
        assert all(output.prompt_logprobs is None for output in others)
        target = expected(model, Path(request.adapter) if request.adapter else None, request.prompt)
        assert len(first.prompt_logprobs) == len(target)
        for known, row, token in zip(
            first.prompt_logprobs, target, request.prompt[1:], strict=True
        ):
            assert known.chosen == pytest.approx(float(row[token]), abs=1e-4)
            best = row.topk(3)
            assert [value for _, value in known.top] == pytest.approx(
                best.values.tolist(), abs=1e-4
            )


def test_a_single_token_and_a_resumed_request_have_none(model: Path) -> None:
    with Engine.from_pretrained(model, device="cpu", dtype="float32", kv_cache_gib=0.01) as engine:
        sampling = Sampling(4, prompt_logprobs=0, ignore_eos=True)
        outputs = run(
            engine, [Request("1", [5], sampling), Request("2", [5, 6], sampling, None, [7])]
        )
    assert all(o.prompt_logprobs is None for each in outputs.values() for o in each)


def test_what_was_scored_is_not_scored_again(model: Path) -> None:
    """Else a long prompt whose adapter takes turns for a slot would begin again for ever."""
    with Engine.from_pretrained(
        model, device="cpu", dtype="float32", kv_cache_gib=0.01, max_step_tokens=32
    ) as engine:
        engine.add(Request("r", PROMPTS[0], Sampling(4, prompt_logprobs=0, ignore_eos=True)))
        engine.step()
        sequence = engine._schedule.running[0]
        engine._schedule._preempt(sequence)
        engine.step()
        assert sequence.computed == 64  # 32 were cached
        outputs = [output for _ in range(4) for output in engine.step()]
    assert len(outputs[0].prompt_logprobs or []) == len(PROMPTS[0]) - 1


def test_absurd_weights_give_finite_numbers(model: Path, adapter: Path, tmp_path: Path) -> None:
    absurd = tmp_path / "absurd"
    shutil.copytree(adapter, absurd)
    weights = load_file(adapter / "adapter_model.safetensors")
    huge = {name: torch.full_like(tensor, 3e37) for name, tensor in weights.items()}
    save_file(huge, absurd / "adapter_model.safetensors")
    with Engine.from_pretrained(model, device="cpu", dtype="float32", kv_cache_gib=0.01) as engine:
        sampling = Sampling(1, logprobs=2, prompt_logprobs=2)
        (output,) = run(engine, [Request("r", [5, 6, 7], sampling, str(absurd))])["r"]
    for known in (*(output.logprobs or ()), *(output.prompt_logprobs or ())):
        assert all(map(math.isfinite, (known.chosen, *(value for _, value in known.top))))
