"""Merged adapters are what PEFT's functions make of A and B; DARE drops what it says."""

import json
import os
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.utils.merge_utils import task_arithmetic, ties
from safetensors.numpy import load, save

from loraplex.store.adapters import AdapterStore, inspect
from loraplex.store.merged import MergedAdapters, MergeRefused
from loraplex.store.merging import MajoritySign, Merge, Strategy
from loraplex.store.merging import merge as merge_within
from loraplex.store.peft_checks import AdapterInvalid

Q, V = (f"base_model.model.model.layers.0.self_attn.{name}_proj" for name in "qv")
Files = tuple[bytes, bytes]


def adapter(seed: int, linears: tuple[str, ...] = (Q, V), r: int = 4, **config: Any) -> Files:
    draw = np.random.default_rng(seed)
    tensors = {}
    for linear in linears:
        tensors[f"{linear}.lora_A.weight"] = draw.standard_normal((r, 24)).astype(np.float32)
        tensors[f"{linear}.lora_B.weight"] = draw.standard_normal((16, r)).astype(np.float32)
    fields = {"peft_type": "LORA", "r": r, "lora_alpha": r, "base_model_name_or_path": "org/m"}
    return json.dumps(fields | config).encode(), save(tensors)


def merge(asked: Merge, adapters: list[Files]) -> Files:
    return merge_within(asked, adapters, 2**30)


def how(strategy: Strategy, count: int = 3, density: float = 0.6, **given: Any) -> Merge:
    weights = tuple(0.5 + i for i in range(count))
    return Merge(tuple("abc"[:count]), weights, strategy, density, **given)


def tensors_of(adapters: list[Files], name: str) -> list[torch.Tensor]:
    return [torch.from_numpy(load(weights)[name]) for _, weights in adapters]


@pytest.mark.parametrize("sign", MajoritySign)
@pytest.mark.parametrize("strategy", [Strategy.LINEAR, Strategy.TIES])
@pytest.mark.parametrize("density", [0.001, 0.3, 1.0])
def test_linear_and_ties_are_pefts(strategy: Strategy, sign: MajoritySign, density: float) -> None:
    adapters = [adapter(seed) for seed in range(3)]
    asked = how(strategy, density=density, sign=sign)
    config, weights = merge(asked, adapters)
    weight = torch.tensor(asked.weights)
    for name, found in load(weights).items():
        given = tensors_of(adapters, name)
        if strategy is Strategy.LINEAR:
            wanted = task_arithmetic(given, weight)
        else:
            wanted = ties(given, weight, density, sign.value)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6, atol=1e-6)
    assert json.loads(config)["r"] == json.loads(config)["lora_alpha"] == 4


@pytest.mark.parametrize("strategy", [Strategy.DARE_LINEAR, Strategy.DARE_TIES])
def test_dare_drops_at_random_scales_up_and_is_the_same_each_time(strategy: Strategy) -> None:
    adapters = [adapter(1)]
    asked = Merge(("a",), (1.0,), strategy, 0.25)
    _, weights = merge(asked, adapters)
    assert merge(asked, adapters)[1] == weights
    before, after = (
        np.concatenate([t.ravel() for _, t in sorted(load(each).items())])
        for each in (adapters[0][1], weights)
    )
    kept = after != 0
    np.testing.assert_allclose(after[kept], before[kept] * 4, rtol=1e-6)
    assert 0.15 < kept.mean() < 0.35
    other = merge(Merge(("b",), (1.0,), strategy, 0.25), adapters)[1]
    assert other != weights, "another merge draws anew"


@pytest.mark.parametrize(
    "config",
    [{"lora_alpha": 16}, {"lora_alpha": 16, "use_rslora": True}, {"alpha_pattern": {"q_proj": 1}}],
    ids=str,
)
def test_scaling_is_folded_in(config: dict[str, Any]) -> None:
    """Merged alone with weight 1, an adapter computes what it did."""
    files = adapter(2, **config)
    merged_config, merged = merge(Merge(("a",), (1.0,)), [files])
    assert json.loads(merged_config)["lora_alpha"] == 4
    factor = {"q": 4.0, "v": 4.0}
    if config.get("use_rslora"):
        factor = {"q": 8.0, "v": 8.0}
    if "alpha_pattern" in config:
        factor = {"q": 0.25, "v": 1.0}
    for name, found in load(merged).items():
        scale = factor["q" if "q_proj" in name else "v"] if "lora_B" in name else 1.0
        np.testing.assert_allclose(found, load(files[1])[name] * scale, rtol=1e-6)


def test_layers_and_ranks_that_only_some_have() -> None:
    wide = adapter(1, (Q,), r=8)
    narrow = adapter(2, (V,), r=4)
    config, weights = merge(Merge(("a", "b"), (2.0, 3.0)), [wide, narrow])
    facts = inspect(config, weights, None)
    assert facts.targets == ["q_proj", "v_proj"] and facts.rank == 8
    np.testing.assert_allclose(
        load(weights)[f"{V}.lora_A.weight"], 3 * load(narrow[1])[f"{V}.lora_A.weight"], rtol=1e-6
    )


def test_a_smaller_rank_is_padded_and_counts_only_where_it_has_values() -> None:
    wide, narrow = adapter(1, (Q,), r=8), adapter(2, (Q,), r=4)
    merged = load(merge(Merge(("a", "b"), (0.0, 1.0)), [wide, narrow])[1])
    a, b = (load(narrow[1])[f"{Q}.lora_{side}.weight"] for side in "AB")
    found = merged[f"{Q}.lora_B.weight"] @ merged[f"{Q}.lora_A.weight"]
    np.testing.assert_allclose(found, b @ a, rtol=1e-5, atol=1e-5)
    config, weights = merge(Merge(("a", "b"), (1.0, 1.0), Strategy.TIES), [wide, narrow])
    assert inspect(config, weights, None).rank == 8
    theirs = load(wide[1])[f"{Q}.lora_A.weight"][4:]
    np.testing.assert_array_equal(load(weights)[f"{Q}.lora_A.weight"][4:], theirs)


def test_adapters_of_different_models_are_not_merged() -> None:
    other = load(adapter(2)[1])
    other = {name: np.pad(t, ((0, 0), (0, 1))) if "_A" in name else t for name, t in other.items()}
    with pytest.raises(AdapterInvalid, match="don't go together"):
        merge(Merge(("a", "b"), (1.0, 1.0)), [adapter(1), (adapter(2)[0], save(other))])


def test_bfloat16_and_float16_are_read() -> None:
    config, weights = adapter(3)
    from safetensors.torch import load as load_torch
    from safetensors.torch import save as save_torch

    for kind in (torch.bfloat16, torch.float16):
        small = {name: tensor.to(kind) for name, tensor in load_torch(weights).items()}
        _, merged = merge(Merge(("a",), (1.0,)), [(config, save_torch(small))])
        for name, found in load(merged).items():
            np.testing.assert_array_equal(found, small[name].float().numpy())


def test_the_two_ways_to_spell_a_tensor_are_one() -> None:
    config, weights = adapter(1)
    spelled = {n.replace(".weight", ".default.weight"): t for n, t in load(weights).items()}
    both = Merge(("a", "b"), (1.0, 1.0))
    one = merge(both, [(config, save(spelled)), (config, weights)])
    assert load(one[1]).keys() == load(weights).keys()


def test_one_that_would_be_too_large_is_not_made() -> None:
    adapters = [adapter(1, (Q,)), adapter(2, (V,))]
    size = 4 * 2 * (4 * 24 + 16 * 4)
    both = Merge(("a", "b"), (1.0, 1.0))
    assert merge_within(both, adapters, size)
    with pytest.raises(AdapterInvalid, match="at most"):
        merge_within(both, adapters, size - 1)


@pytest.fixture
def made(tmp_path: Path) -> tuple[MergedAdapters, AdapterStore, tuple[str, ...]]:
    store = AdapterStore(tmp_path / "adapters")
    digests = tuple(store.put(*adapter(seed), None).digest for seed in range(2))
    return MergedAdapters(store, tmp_path / "merged", most=2, most_bytes=10_000), store, digests


def test_a_merge_is_made_once_and_again_when_it_is_gone(
    made: tuple[MergedAdapters, AdapterStore, tuple[str, ...]], tmp_path: Path
) -> None:
    merged, store, digests = made
    asked = Merge(digests, (1.0, 1.0))
    assert merged.known("t", asked) is None
    digest = merged.make("t", asked, inf)
    assert merged.known("t", asked) == digest and merged.known("another", asked) is None
    assert store.remove(digest, -1)
    assert merged.known("t", asked) is None
    assert merged.make("t", asked, inf) == digest and store.use(digest)


def test_merges_of_a_day_are_bounded_failed_ones_too_and_a_used_one_stays(
    made: tuple[MergedAdapters, AdapterStore, tuple[str, ...]], tmp_path: Path
) -> None:
    merged, store, digests = made
    asked = Merge(digests, (1.0, 1.0))
    merged.make("t", asked, inf)
    (note,) = (tmp_path / "merged").glob("*/*")
    os.utime(note, (0, 0))
    assert merged.known("t", asked), "and so it was used today"
    large = store.put(*adapter(9, r=64), None).digest
    with pytest.raises(AdapterInvalid, match="together they have over"):
        merged.make("t", Merge((large, digests[0]), (1.0, 2.0)), inf)
    with pytest.raises(MergeRefused, match="2 different merges a day"):
        merged.make("t", Merge(digests, (1.0, 3.0)), inf)
    assert merged.known("t", asked)
    other = Merge(digests, (1.0, 3.0))
    size = store.folder(merged.make("another", other, inf))
    used = sum(file.stat().st_size for file in size.iterdir())
    with pytest.raises(MergeRefused, match="full"):
        merged.make("another", Merge(digests, (1.0, 4.0)), used)
