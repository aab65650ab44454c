"""Every kind of PEFT LoRA on linear layers: what PEFT computes is what the engine computes, in any
mix, under random arrival, cancellation, preemption and eviction. float32, token for token."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from gpu_worker.engine import device
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import AdapterRefused, Request, Sampling
from tests.integration.test_admission_probe import ADMITTED, LLAMA, save

NEW_TOKENS = 14
PROMPTS = [list(range(3, 3 + n)) for n in (1, 9, 20, 33)] + [[*list(range(3, 20)), 50, 51]]
FORMATS: dict[str, dict[str, Any]] = {
    "list": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"r": 8, "target_modules": "all-linear"},
    "regex": {"r": 2, "target_modules": r".*layers\.1\..*(k|gate|down)_proj"},
    "rslora": {"r": 16, "target_modules": ["o_proj", "up_proj"], "use_rslora": True},
    "patterns": {
        **{"r": 4, "lora_alpha": 12, "target_modules": "all-linear"},
        **{"rank_pattern": {"q_proj": 1, "layers.0.mlp.up_proj": 21}},
        **{"alpha_pattern": {"q_proj": 3, "down_proj": 5}},
    },
    "some layers": {"r": 3, "target_modules": ["down_proj"], "layers_to_transform": [1]},
    "large": {"r": 64, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
}


def make_adapter(base: Path, folder: Path, seed: int, **config: Any) -> Path:
    """A PEFT adapter as PEFT saves it, with weights that change the output visibly."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    peft.save_pretrained(folder)
    return folder


def expected(base: Path, adapter: Path | None, prompt: list[int]) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


def request(name: str, prompt: list[int], adapter: Path | None) -> Request:
    sampling = Sampling(NEW_TOKENS, ignore_eos=True)
    return Request(name, prompt, sampling, None if adapter is None else str(adapter))


PATHS: dict[str, dict[str, Any]] = {
    "cpu": {"device": "cpu"},
    "cpu, overlapped steps": {"device": "cpu", "overlap": True},
    "gpu": {"device": "interpreter"},
}


@pytest.fixture(scope="module", params=PATHS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["World"]:
    made = World(tmp_path_factory.mktemp("world"), PATHS[request.param])
    yield made
    made.engine.close()


class World:
    """A tiny llama, an adapter of every format, and an engine too small for all of them."""

    def __init__(self, folder: Path, path: dict[str, Any]) -> None:
        self.slow = path["device"] == "interpreter"
        base = save("llama", LLAMA, folder / "base")
        self.adapters: list[Path | None] = [None]
        for index, (name, config) in enumerate(FORMATS.items()):
            self.adapters.append(make_adapter(base, folder / name, index, **config))
        self.expected = {
            (a, p): expected(base, adapter, prompt)
            for a, adapter in enumerate(self.adapters)
            for p, prompt in enumerate(PROMPTS)
        }
        self.engine = Engine.from_pretrained(
            *(base, Path),
            **(path | {"dtype": "float32", "max_running": 5, "max_step_tokens": 24}),
            **{"max_adapters": 3, "adapter_cache_gib": 200e3 / 2**30},
            kv_cache_gib=11 * 16 * 256 / 2**30,  # ten blocks: preemption is the rule
        )


def test_adapters_differ(world: World) -> None:
    first = {tuple(world.expected[a, 3]) for a in range(len(world.adapters))}
    assert len(first) == len(world.adapters)


JOBS = st.lists(
    st.tuples(
        st.integers(0, len(FORMATS)),
        st.integers(0, len(PROMPTS) - 1),
        st.integers(0, 12),  # steps before it comes
        st.one_of(st.none(), st.integers(0, 20)),  # steps before it is cancelled
        st.integers(0, NEW_TOKENS - 1),  # tokens that another replica has produced
    ),
    min_size=1,
    max_size=10,
)


def test_mixed_batches_equal_peft_whatever_happens(world: World) -> None:
    @settings(
        max_examples=3 if world.slow else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(jobs=JOBS)
    def check(jobs: list[tuple[int, int, int, int | None, int]]) -> None:
        run(world, jobs)

    check()


def run(world: World, jobs: list[tuple[int, int, int, int | None, int]]) -> None:
    engine, got, gone = world.engine, {}, set()
    turn = 0
    while turn <= 12 or engine.load:
        for index, (adapter, prompt, comes, leaves, produced) in enumerate(jobs):
            name = str(index)
            if comes == turn:
                known = world.expected[adapter, prompt][:produced]
                each = request(name, PROMPTS[prompt], world.adapters[adapter])
                engine.add(Request(each.id, each.prompt, each.sampling, each.adapter, list(known)))
                got[name] = list(known)
            if leaves is not None and leaves == turn and engine.cancel(name) is not None:
                gone.add(name)
        for output in engine.step():
            assert output.error is None
            assert output.position == len(got[output.request])
            got[output.request] += output.tokens
        turn += 1
    for index, (adapter, prompt, _, _, _) in enumerate(jobs):
        whole = world.expected[adapter, prompt]
        length = len(got[str(index)]) if str(index) in gone else NEW_TOKENS
        assert got[str(index)] == whole[:length]


@pytest.mark.parametrize("path", ["C", "torch", "triton"])
@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("gpt2", ["c_attn", "c_proj", "c_fc"]),
        ("gpt_neox", ["query_key_value", "dense_h_to_4h"]),
        ("phi3", ["qkv_proj", "gate_up_proj", "o_proj"]),
        ("qwen2", "all-linear"),
        ("gemma2", "all-linear"),
        ("mixtral", ["q_proj", "v_proj", "o_proj"]),
        ("deepseek_v3", ["q_a_proj", "kv_b_proj", "o_proj"]),
    ],
)
def test_other_architectures(
    kind: str,
    targets: Any,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if path == "torch":
        monkeypatch.setattr(device, "library", lambda: None)
    base = save(kind, ADMITTED[kind], tmp_path / "base")
    adapters = [None] + [
        make_adapter(base, tmp_path / str(r), r, r=r, target_modules=targets) for r in (3, 20)
    ]
    where = "interpreter" if path == "triton" else "cpu"
    engine = Engine.from_pretrained(base, device=where, dtype="float32", kv_cache_gib=0.01)
    got = engine.generate([request(str(i), PROMPTS[2], a) for i, a in enumerate(adapters)])
    engine.close()
    assert got == {str(i): expected(base, a, PROMPTS[2]) for i, a in enumerate(adapters)}


def rename(source: Path, target: Path, change: Any) -> Path:
    """A copy of an adapter with other tensors."""
    target.mkdir()
    (target / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    tensors = load_file(source / "adapter_model.safetensors")
    save_file(change(tensors), target / "adapter_model.safetensors")
    return target


def test_an_adapter_of_fused_layers_serves_split_ones_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    base = save("llama", LLAMA, tmp_path / "base")
    split = make_adapter(
        base, tmp_path / "split", 1, r=4, target_modules=["q_proj", "k_proj", "v_proj"]
    )

    def fuse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        fused = {}
        for layer in range(2):
            at = f"base_model.model.model.layers.{layer}.self_attn"
            sides = [[tensors[f"{at}.{p}_proj.lora_{s}.weight"] for p in "qkv"] for s in ("A", "B")]
            fused[f"{at}.qkv_proj.lora_A.weight"] = torch.cat(sides[0])
            b = torch.block_diag(*sides[1]) * 3  # alpha / r with three times the rank
            fused[f"{at}.qkv_proj.lora_B.weight"] = b
        return fused

    fused = rename(split, tmp_path / "fused", fuse)
    engine = Engine.from_pretrained(base, device="cpu", dtype="float32", kv_cache_gib=0.01)
    got = engine.generate([request("r", PROMPTS[2], fused)])["r"]
    assert got == expected(base, split, PROMPTS[2])
    engine.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_what_would_be_computed_wrong_is_refused_by_name(
    world: World, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    source = world.adapters[1]
    assert source is not None
    adapter = rename(source, tmp_path / "changed", lambda tensors: tensors)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(AdapterRefused, match=named):
        world.engine.generate([request("r", PROMPTS[0], adapter)])


def test_the_order_of_arrival_does_not_matter(world: World) -> None:
    pairs = list(world.expected)
    random.Random(0).shuffle(pairs)
    chosen = pairs[:6] if world.slow else pairs
    got = world.engine.generate(
        [request(f"{a}/{p}", PROMPTS[p], world.adapters[a]) for a, p in chosen]
    )
    assert got == {f"{a}/{p}": world.expected[a, p] for a, p in chosen}
