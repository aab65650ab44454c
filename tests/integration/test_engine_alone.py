"""The engine as a library: what is asked of it wrongly is refused, and nothing else suffers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import (
    AdapterRefused,
    Grammar,
    InvalidRequest,
    ModelRefused,
    Request,
    Sampling,
)
from tests.integration.test_admission_probe import LLAMA, save
from tests.integration.test_lora_formats import make_adapter

PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", LLAMA, tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def engine(tiny: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(tiny, device="cpu", dtype="float32", kv_cache_gib=0.01) as made:
        yield made


def good(name: str = "good", new: int = 6) -> Request:
    return Request(name, PROMPT, Sampling(new, ignore_eos=True))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"top_k": -1}, {"top_k": 2.5}, {"logprobs": -1}, {"logprobs": True}, {"seed": None}),
        *({"seed": 1.5}, {"max_tokens": 0}, {"max_tokens": 2.5}, {"temperature": float("nan")}),
        *({"temperature": "hot"}, {"stop_ids": None}, {"stop_ids": (97,)}, {"logit_bias": None}),
        *({"logit_bias": {"5": 1}}, {"logit_bias": {5: "x"}}, {"grammar": {"type": "object"}}),
        *({"min_tokens": -1}, {"top_p": 1.5}),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named_and_disturbs_nobody(
    engine: Engine, wrong: dict[str, Any]
) -> None:
    alone = engine.generate([good()])
    engine.add(good())
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        engine.add(Request("bad", PROMPT, Sampling(**{"max_tokens": 6} | wrong)))
    tokens = [t for _ in range(6) for output in engine.step() for t in output.tokens]
    assert (tokens, engine.load) == (alone["good"], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"prompt": "text"}, {"prompt": [1.5]}, {"prompt": [-1]}, {"prompt": [97]}),
        *({"prompt": []}, {"tenant": None}, {"adapter": Path("x")}, {"produced": None}),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused(engine: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        engine.add(Request(**{"id": "bad", "prompt": PROMPT, "sampling": Sampling(3)} | wrong))
    assert engine.load == 0


def test_an_id_is_taken_once(engine: Engine) -> None:
    engine.add(good())
    with pytest.raises(InvalidRequest, match="'good' is in the engine"):
        engine.add(good())
    with pytest.raises(InvalidRequest, match="'good' is in the engine"):
        engine.generate([good("other"), good()])
    assert engine.load == 1, "what `generate` had added is gone, the first one stays"


def test_streams_and_generate_side_by_side_lose_nothing(engine: Engine) -> None:
    alone = engine.generate([good()])["good"]
    first, second = engine.stream(good("a")), engine.stream(good("b", 4))
    positions = {"a": [next(first).position], "b": [next(second).position]}
    assert engine.generate([good("c")])["c"] == alone
    positions["a"] += [output.position for output in first]
    positions["b"] += [output.position for output in second]
    assert positions == {"a": list(range(6)), "b": list(range(4))}


def test_engines_in_threads_do_not_meet(tiny: Path) -> None:
    def run(_: int) -> list[dict[str, list[int]]]:
        with Engine.from_pretrained(tiny, device="cpu", kv_cache_gib=0.01) as own:
            return [own.generate([good(new=20)]) for _ in range(20)]

    with ThreadPoolExecutor(3) as threads:
        results = [each for found in threads.map(run, range(3)) for each in found]
    assert all(each == results[0] for each in results)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("regex", r"[^\s\S]"),
        ("regex", "(a{1000}){1000}"),
        ("json_schema", '{"$ref": "#"}'),
        ("lark", "start: start"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_an_error(
    smollm2: Path, kind: Any, source: str
) -> None:
    with Engine.from_pretrained(smollm2, device="cpu") as real:
        sampling = Sampling(4, grammar=Grammar(kind, source))
        outputs = list(real.stream(Request("g", [504, 3575], sampling)))
        assert outputs[-1].finish == "error"
        assert outputs[-1].error is not None and outputs[-1].error.code == "grammar_refused"
        rich = {f"field_{i}": {"type": ["string", "number", "null"]} for i in range(60)}
        schema = json.dumps({"type": "object", "properties": rich, "required": [*rich]})
        sampling = Sampling(30, grammar=Grammar("json_schema", schema))
        (tokens,) = real.generate([Request("s", [504, 3575], sampling)]).values()
        assert len(tokens) == 30, "an ordinary schema is within the limits"


def test_a_checkpoint_without_a_tensor_is_refused(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"layers\.0\.mlp\.up_proj\.weight"):
        Engine.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"device": "mps"}, "device must be"),
        ({"device": "cuda:7"}, "can't be used"),
        ({"dtype": "float64"}, "dtype must be"),
        ({"dtype": torch.float32}, "dtype must be"),
    ],
    ids=str,
)
def test_a_machine_that_is_not_there_is_refused(
    tiny: Path, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        Engine.from_pretrained(tiny, **config)


def test_no_folder_no_decoder_and_no_sense(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="not a folder"):
        Engine.from_pretrained("org/model")
    bert = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    with pytest.raises(ModelRefused, match=r"[bB]ert"):
        Engine.from_pretrained(save("bert", bert | {"num_attention_heads": 4}, tmp_path))
    for name, value in (("max_running", 0), ("max_adapters", 2.5), ("kv_cache_gib", float("nan"))):
        with pytest.raises(ValueError, match=name):
            Engine.from_pretrained(tiny, **{name: value})


def test_an_adapter_with_nan_is_refused_and_the_request_named(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "nan", 0, r=4, target_modules=["q_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, file)
    with (
        Engine.from_pretrained(tiny, device="cpu", kv_cache_gib=0.01) as own,
        pytest.raises(AdapterRefused, match=r"request 'r': .*NaN"),
    ):
        own.generate([Request("r", PROMPT, Sampling(3), str(adapter))])


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.add(good())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--adapter", "/nope"], "can't be read"),
        (["--streams", "0"], "1 or more"),
        (["--prompt", "200"], "at most 128"),
    ],
)
def test_bench_measures_no_errors(tiny: Path, options: list[str], reason: str) -> None:
    command = [sys.executable, "-m", "gpu_worker.engine.bench", str(tiny), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not done.stdout
    assert reason in done.stderr and "Traceback" not in done.stderr
