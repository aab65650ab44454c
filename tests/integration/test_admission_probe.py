"""Tiny random models: what is computed like transformers does is admitted, the rest refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import ModelRefused, Request, Sampling

SMALL: dict[str, Any] = {
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
LLAMA = SMALL | GQA
WINDOWED = {"sliding_window": 8, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ADMITTED: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": 8},
    "ministral": LLAMA | WINDOWED,
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 16},
    "phi": SMALL,
    "phi3": LLAMA,
    "gemma": LLAMA | {"head_dim": 8},
    "gemma2": LLAMA | WINDOWED,
    "gemma3_text": LLAMA | WINDOWED,
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": SMALL,
    "gpt_bigcode": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "opt": {
        **{"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    },
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "olmo3": LLAMA | {"sliding_window": 8},
    "granite": LLAMA,
    "cohere": LLAMA,
    "cohere2": LLAMA | WINDOWED,
    "starcoder2": LLAMA,
    "stablelm": LLAMA,
    "smollm3": LLAMA,
    "glm": LLAMA | {"head_dim": 8},
    "glm4": LLAMA | {"head_dim": 8},
    "helium": LLAMA | {"head_dim": 8},
    "nemotron": LLAMA,
    "seed_oss": LLAMA | {"head_dim": 8},
    "ernie4_5": LLAMA | {"head_dim": 8},
    "mixtral": LLAMA | {"num_local_experts": 4},
    "qwen2_moe": LLAMA | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": LLAMA | EXPERTS | {"head_dim": 8},
    "olmoe": LLAMA | {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": LLAMA | WINDOWED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": SMALL
    | {"num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
    | {"topk_group": 1, "moe_intermediate_size": 16, "q_lora_rank": 16, "kv_lora_rank": 16}
    | {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "falcon": (SMALL, "falcon"),
    "bloom": ({"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "bloom"),
    "mpt": ({"vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4}, "mpt"),
    "llama4_text": (
        LLAMA | {"num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 8},
        "chunked_attention",
    ),
    "mamba": ({"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}, "mamba"),
}


def save(kind: str, settings: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # as trained ones are: no zeros that hide a missing bias or sink
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def engine_of() -> Callable[[Path], Engine]:
    def make(folder: Path) -> Engine:
        return Engine.from_pretrained(folder, device="cpu", dtype="float32", kv_cache_gib=0.01)

    return make


@pytest.mark.parametrize("kind", ADMITTED)
def test_admitted_and_greedy_equals_generate(
    kind: str, tmp_path: Path, engine_of: Callable[[Path], Engine]
) -> None:
    folder = save(kind, ADMITTED[kind], tmp_path)
    engine = engine_of(folder)
    prompts = [list(range(3, 40)), list(range(50, 57))]
    requests = [
        Request(str(i), prompt, Sampling(12, ignore_eos=True)) for i, prompt in enumerate(prompts)
    ]
    tokens = engine.generate(requests)
    engine.close()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for index, prompt in enumerate(prompts):
        expected = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=12,
            min_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
        )
        assert tokens[str(index)] == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt2", "gpt_oss", "qwen3_moe"])
def test_on_a_gpu_too(kind: str, tmp_path: Path) -> None:
    """By Triton's interpreter. Others run in test_lora_formats.py."""
    folder = save(kind, ADMITTED[kind], tmp_path)
    tokens = []
    for device in ("cpu", "interpreter"):
        engine = Engine.from_pretrained(folder, device=device, dtype="float32", kv_cache_gib=0.01)
        tokens.append(
            engine.generate(
                [
                    Request("a", list(range(3, 40)), Sampling(6, ignore_eos=True)),
                    Request("b", [5, 6], Sampling(9, 1, 1.0, top_p=0.9, ignore_eos=True)),
                    Request("c", [7], Sampling(9, 2, 0.7, top_k=9, min_p=0.01, ignore_eos=True)),
                ]
            )
        )
        engine.close()
    assert tokens[0] == tokens[1]


def test_a_step_after_one_that_sampled_nothing_on_a_gpu(tmp_path: Path) -> None:
    """Nothing is unread then, and the prompt's last chunk of one token runs as a decode step."""
    folder = save("llama", LLAMA, tmp_path)
    tokens = []
    for device in ("cpu", "interpreter"):
        engine = Engine.from_pretrained(
            folder, device=device, dtype="float32", kv_cache_gib=0.01, max_step_tokens=16,
            max_running=2,
        )  # fmt: skip
        request = Request("a", list(range(3, 20)), Sampling(3, logprobs=2, ignore_eos=True))
        tokens.append([(o.tokens, o.finish) for o in engine.stream(request)])
        engine.close()
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_reason(
    kind: str, tmp_path: Path, engine_of: Callable[[Path], Engine]
) -> None:
    settings, reason = REFUSED[kind]
    with pytest.raises(ModelRefused, match=reason):
        engine_of(save(kind, settings, tmp_path))


def test_a_model_whose_frequencies_depend_on_the_batch_is_served_where_they_do_not(
    tmp_path: Path, engine_of: Callable[[Path], Engine]
) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    settings = LLAMA | {"rope_scaling": rope, "original_max_position_embeddings": 64}
    engine = engine_of(save("phi3", settings, tmp_path))
    assert engine.context_length == 64
    engine.close()


def test_a_model_that_attends_to_later_tokens_is_refused(
    tmp_path: Path, engine_of: Callable[[Path], Engine]
) -> None:
    settings = ADMITTED["gemma3_text"] | {"use_bidirectional_attention": True}
    with pytest.raises(ModelRefused, match="later tokens"):
        engine_of(save("gemma3_text", settings, tmp_path))


def test_an_encoder_decoder_is_refused(tmp_path: Path, engine_of: Callable[[Path], Engine]) -> None:
    config = transformers.T5Config(vocab_size=97, d_model=32, num_layers=1, num_heads=2, d_ff=32)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match="encoder-decoder"):
        engine_of(tmp_path)


def test_a_folder_without_a_model_is_refused(
    tmp_path: Path, engine_of: Callable[[Path], Engine]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelRefused):
        engine_of(tmp_path)
