"""Embeddings equal transformers + PEFT, in chunks, in company, preempted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling
from tests.integration.test_admission_probe import LLAMA, save
from tests.integration.test_lora_formats import make_adapter
from tests.integration.test_prompt_logprobs import PATHS, PROMPTS, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", LLAMA, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model, tmp_path_factory.mktemp("adapter"), 0, r=8)


def expected(model: Path, adapter: str | None, prompt: list[int], pooling: str) -> torch.Tensor:
    reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        reference = PeftModel.from_pretrained(reference, adapter)
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        hidden = reference(ids, output_hidden_states=True).hidden_states[-1][0]
    pooled = hidden[-1] if pooling == "last" else hidden.mean(0)
    return torch.nn.functional.normalize(pooled, dim=0)


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_equal_to_peft(model: Path, adapter: Path, path: dict[str, Any], pooling: str) -> None:
    requests = [
        Request(f"{number} {name}", prompt, Sampling(1, pooling=pooling), adapter=name)
        for number, prompt in enumerate(PROMPTS)
        for name in (None, str(adapter))
    ]
    company = [Request("plain", PROMPTS[0], Sampling(9, ignore_eos=True))]
    options: dict[str, Any] = {"dtype": "float32", "max_step_tokens": 32, "kv_cache_gib": 0.01}
    with Engine.from_pretrained(model, **options | path) as engine:
        run(engine, company)  # its blocks are in the prefix cache
        outputs = run(engine, company + requests)
    assert all(output.embedding is None for output in outputs["plain"])
    for request in requests:
        (only,) = outputs[request.id]
        assert only.embedding is not None and only.finish
        found = torch.from_numpy(np.frombuffer(only.embedding, "<f4").copy())
        target = expected(model, request.adapter, request.prompt, pooling)
        torch.testing.assert_close(found, target, atol=2e-5, rtol=1e-4)
