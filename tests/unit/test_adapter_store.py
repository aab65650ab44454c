"""Registration refuses what would be computed wrong, naming the field."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from loraplex.store.adapters import AdapterInvalid, AdapterStore, inspect

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/base"}
LINEAR = "base_model.model.model.layers.0.self_attn.q_proj"


def config(**changes: Any) -> bytes:
    return json.dumps(CONFIG | changes).encode()


def weights(
    out: int = 6, into: int = 4, rank: int = 2, linear: str = LINEAR, fill: float = 1
) -> bytes:
    return save(
        {
            f"{linear}.lora_A.weight": np.full((rank, into), fill, np.float32),
            f"{linear}.lora_B.weight": np.ones((out, rank), np.float32),
        }
    )


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.fixture
def base(tmp_path: Path) -> Path:
    name = "model.layers.0.self_attn.q_proj.weight"
    (tmp_path / "model.safetensors").write_bytes(save({name: np.ones((6, 4), np.float32)}))
    return tmp_path


def test_facts_of_a_good_adapter(base: Path) -> None:
    facts = inspect(config(), weights(), base)
    assert (facts.rank, facts.targets) == (2, ["q_proj"])


def test_layers_that_are_named_as_they_are_pass(base: Path) -> None:
    named = {"layers_to_transform": [0, 3], "exclude_modules": ["v_proj"]}
    assert inspect(config(**named), weights(), base).rank == 2


def test_same_content_has_one_folder_and_one_digest(base: Path, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    first = store.put(config(), weights(), base)
    assert store.put(config(), weights(), base) == first
    assert store.put(config(lora_alpha=8), weights(), base).digest != first.digest
    assert len(list((tmp_path / "adapters").glob("[0-9a-f]*"))) == 2


def test_what_is_not_used_for_long_can_be_removed_what_is_used_stays(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    old, used = (store.put(config(lora_alpha=alpha), weights(), None).digest for alpha in (1, 2))
    for digest in (old, used):
        os.utime(store.folder(digest), (0, 0))
    assert set(store.unused(3600)) == {old, used}
    assert store.use(used)
    assert (store.remove(old, 3600), store.remove(used, 3600)) == (True, False)
    assert not store.use(old) and store.use(used)
    assert store.put(config(lora_alpha=1), weights(), None).digest == old
    assert not store.unused(3600)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"target_modules": 5}, "target_modules"),
        ({"target_modules": [5]}, "target_modules"),
        ({"layers_to_transform": "x"}, "layers_to_transform"),
        ({"layers_to_transform": [99]}, "layers_to_transform"),
        ({"layers_to_transform": 1}, "layers_to_transform"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
        ({"exclude_modules": ".*"}, "exclude_modules"),
        ({"exclude_modules": "(a|b)*"}, "exclude_modules"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "alpha_pattern"),
        ({"rank_pattern": {".*.*.*x": 2}}, "rank_pattern"),
        ({"r": 0}, "r=0"),
        ({"r": 4}, "r=4"),
        ({"target_modules": ["xx"]}, "target_modules"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path"),
    ],
)
def test_unsupported_features_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(AdapterInvalid, match=named):
        inspect(config(**change), weights(), None)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "safetensors"),
        (b"\xff" * 64, "safetensors"),
        (header(b"[" * 100_000), "safetensors"),
        (header(b'{"a": {"shape": [Infinity], "data_offsets": [0, 1]}}'), "safetensors"),
        (header(b'{"a": {"shape": [1], "data_offsets": "ab"}}'), "safetensors"),
        (header(b'{"\\ud800": {"shape": [1], "data_offsets": [0, 0]}}'), "safetensors"),
        (weights()[:-4], "cut off"),
        (weights(rank=257), "rank"),
        (weights(fill=np.nan), "NaN"),
        (
            header(b'{"a": {"dtype": "ZZ", "shape": [2, 2], "data_offsets": [0, 16]}}'),
            "safetensors",
        ),
        (save({f"{LINEAR}.lora_A.weight": np.ones((2, 4), np.float32)}), "only one of"),
        (save({"other": np.ones((2, 2), np.float32)}), "other"),
    ],
)
def test_broken_weights_are_refused(raw: bytes, why: str) -> None:
    with pytest.raises(AdapterInvalid, match=why):
        inspect(config(), raw, None)


def test_an_adapter_of_another_base_is_refused(base: Path) -> None:
    with pytest.raises(AdapterInvalid, match="another base model"):
        inspect(config(), weights(into=5), base)
    with pytest.raises(AdapterInvalid, match="no linear layer"):
        inspect(config(), weights(linear="base_model.model.model.layers.9.q_proj"), base)


@pytest.mark.parametrize("digest", ["", "../etc", "AB", "ab/cd"])
def test_a_digest_cannot_leave_the_store(digest: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digest"):
        AdapterStore(tmp_path).folder(digest)
