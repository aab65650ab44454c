"""Registration and engine refuse the same adapter configs: neither may import the other."""

import json
from typing import Any

import pytest

from gpu_worker.engine.lora.checkpoint import refuse_unsupported
from gpu_worker.engine.request import AdapterRefused
from loraplex.store.peft_checks import AdapterInvalid, parse_config

GOOD: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    "change",
    [
        *({"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}),
        *({"lora_bias": True}, {"init_lora_weights": "pissa_niter_4"}, {"use_qalora": True}),
        *({"init_lora_weights": "OLoRA"}, {"target_parameters": ["w"]}, {"peft_type": "IA3"}),
        *({"layer_replication": [[0, 1]]}, {"trainable_token_indices": [1]}),
        *({"alora_invocation_tokens": [1]}, {"alpha_pattern": {"(a+)+b": 4}}),
    ],
    ids=str,
)
def test_both_refuse(change: dict[str, Any]) -> None:
    field = next(iter(change))
    with pytest.raises(AdapterRefused, match=field):
        refuse_unsupported(GOOD | change)
    with pytest.raises(AdapterInvalid, match=field):
        parse_config(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize(
    "change",
    [
        *({}, {"use_rslora": True}, {"bias": "none"}, {"init_lora_weights": "gaussian"}),
        *({"init_lora_weights": False}, {"modules_to_save": None}, {"layers_to_transform": [1]}),
        {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 4, r".*\d+.up_proj": 2}},
    ],
    ids=str,
)
def test_both_accept(change: dict[str, Any]) -> None:
    refuse_unsupported(GOOD | change)
    parse_config(json.dumps(GOOD | change).encode())
