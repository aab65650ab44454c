"""Greedy output, base and both adapters mixed in one batch, equals transformers + PEFT one at a
time: token for token, in float32."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from gpu_worker.engine.engine import Engine, EngineConfig
from gpu_worker.engine.request import AdapterRefused, Output, Request, Sampling, TooLong
from tests.conftest import ADAPTERS

NEW_TOKENS = 40
QUESTIONS = ("What is the capital of France?", "Why is the sky blue?", "Name three animals. " * 12)
VARIANTS = (None, "pirate", "json")


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Engine:
    # A small step budget, so that prompts are split into chunks beside decoding rows.
    config = EngineConfig("cpu", "float32", max_running=16, max_step_tokens=48, max_adapters=2)
    return Engine(smollm2, config, lambda name: ADAPTERS / name)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2 / "tokenizer.json"))


def prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return list(tokenizer.encode(text).ids)


def run(engine: Engine, requests: list[Request]) -> dict[str, list[int]]:
    """Requests join one after the other while the earlier ones run."""
    tokens: dict[str, list[int]] = {r.id: list(r.produced) for r in requests}
    waiting = list(requests)
    while waiting or engine.load:
        if waiting:
            engine.add(waiting.pop(0))
        for output in engine.step():
            assert output.position == len(tokens[output.request])
            tokens[output.request] += output.tokens
    return tokens


@pytest.fixture(scope="module")
def reference(smollm2: Path, tokenizer: Tokenizer) -> dict[tuple[str | None, str], list[int]]:
    """transformers + PEFT, one at a time."""
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, ADAPTERS / "pirate", adapter_name="pirate")
    peft.load_adapter(ADAPTERS / "json", adapter_name="json")
    expected = {}
    for variant in VARIANTS:
        for question in QUESTIONS:
            ids = torch.tensor([prompt(tokenizer, question)])
            if variant:
                peft.set_adapter(variant)
                output = peft.generate(input_ids=ids, max_new_tokens=NEW_TOKENS, do_sample=False)
            else:
                with peft.disable_adapter():
                    output = peft.generate(
                        input_ids=ids, max_new_tokens=NEW_TOKENS, do_sample=False
                    )
            expected[variant, question] = output[0, ids.shape[1] :].tolist()
    return expected


def test_mixed_batch_equals_peft_token_for_token(
    engine: Engine,
    tokenizer: Tokenizer,
    reference: dict[tuple[str | None, str], list[int]],
) -> None:
    requests = {
        f"{variant}/{n}": ((variant, question), variant)
        for n, question in enumerate(QUESTIONS)
        for variant in VARIANTS
    }
    got = run(
        engine,
        [
            Request(name, prompt(tokenizer, key[1]), Sampling(NEW_TOKENS), variant)
            for name, (key, variant) in requests.items()
        ],
    )
    assert got == {name: reference[key] for name, (key, _) in requests.items()}
    assert len({tuple(reference[v, QUESTIONS[0]]) for v in VARIANTS}) == 3, "variants must differ"


def test_a_resumed_request_goes_on_as_if_undisturbed(engine: Engine, tokenizer: Tokenizer) -> None:
    ids = prompt(tokenizer, QUESTIONS[1])
    for sampling in (Sampling(30), Sampling(30, seed=5, temperature=0.9, top_p=0.9)):
        whole = run(engine, [Request("whole", ids, sampling, "pirate")])["whole"]
        rest = run(engine, [Request("rest", ids, sampling, "pirate", whole[:11])])["rest"]
        assert rest == whole


def test_preempted_requests_finish_with_the_same_tokens(
    smollm2: Path, engine: Engine, tokenizer: Tokenizer
) -> None:
    small = Engine(
        smollm2,
        EngineConfig("cpu", "float32", max_running=8, kv_cache_gib=0.006),  # eight blocks or so
        lambda name: ADAPTERS / name,
    )
    ids = prompt(tokenizer, QUESTIONS[0])
    requests = [Request(str(i), ids, Sampling(40, ignore_eos=True)) for i in range(4)]
    assert run(small, requests) == run(engine, requests)


def test_cancel_frees_everything(engine: Engine, tokenizer: Tokenizer) -> None:
    free = engine.room
    engine.add(Request("r", prompt(tokenizer, QUESTIONS[0]), Sampling(50), "json"))
    engine.step()
    assert engine.cancel("r") == Output("r", 1, [], "cancelled")
    assert engine.cancel("r") is None
    assert (engine.room, engine.load, engine.step()) == (free, 0, [])


def test_what_does_not_fit_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TooLong, match="prompt tokens"):
        engine.add(Request("r", [1] * 10, Sampling(10**6)))
    with pytest.raises(AdapterRefused, match="can't be read"):
        engine.add(Request("r", [1], Sampling(1), str(tmp_path)))
    assert engine.load == 0


def test_an_idle_adapter_leaves_for_another_and_a_pinned_one_stays(engine: Engine) -> None:
    engine.add(Request("p", [1], Sampling(4, ignore_eos=True), "pirate"))
    engine.add(Request("j", [1], Sampling(4, ignore_eos=True), "json"))
    with pytest.raises(AdapterRefused, match="in use"):
        engine.add(Request("x", [1], Sampling(4), "./json"))
    engine.cancel("j")
    engine.add(Request("x", [1], Sampling(4), "./json"))
    assert set(engine.adapters.digests) == {"pirate", "./json"}
    engine.cancel("x")
    engine.cancel("p")
