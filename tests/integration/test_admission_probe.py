"""Tiny random models: what is computed like transformers does is admitted, the rest refused."""

from pathlib import Path

import pytest
import torch
import transformers

from gpu_worker.engine.engine import Engine, EngineConfig
from gpu_worker.engine.request import ModelRefused, Request, Sampling

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GQA = {"num_key_value_heads": 2}
ADMITTED = {
    "llama": SMALL | GQA,
    "mistral": SMALL | GQA | {"sliding_window": 8},
    "qwen2": SMALL | GQA,
    "qwen3": SMALL | GQA | {"head_dim": 16},
    "phi3": SMALL | GQA,
    "olmo2": SMALL | GQA,
    "granite": SMALL | GQA,
    "smollm3": SMALL | GQA,
    "gpt_neox": SMALL,
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "mixtral": SMALL | GQA | {"num_local_experts": 4},
}
REFUSED = {
    "falcon": SMALL,
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": SMALL | GQA | {"head_dim": 8},
}


def save(kind: str, settings: dict[str, object], folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **settings)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> Engine:
    return Engine(folder, EngineConfig("cpu", "float32", kv_cache_gib=0.01), lambda name: folder)


@pytest.mark.parametrize("kind", ADMITTED)
def test_admitted_and_greedy_equals_generate(kind: str, tmp_path: Path) -> None:
    folder = save(kind, ADMITTED[kind], tmp_path)
    engine = load(folder)
    prompt = list(range(3, 40))
    engine.add(Request("r", prompt, Sampling(12, ignore_eos=True)))
    tokens = []
    while engine.load:
        tokens += [t for output in engine.step() for t in output.tokens]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False
    )
    assert tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=kind if kind != "gemma2" else "soft-capping"):
        load(save(kind, REFUSED[kind], tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelRefused):
        load(tmp_path)
