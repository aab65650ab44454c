"""Greedy output, base and both adapters mixed in one batch, equals transformers + PEFT one at a
time: token for token, in float32."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import (
    AdapterRefused,
    Grammar,
    GrammarRefused,
    InvalidRequest,
    Output,
    Request,
    Sampling,
    TooLong,
)
from tests.conftest import ADAPTERS

NEW_TOKENS = 40
QUESTIONS = ("What is the capital of France?", "Why is the sky blue?", "Name three animals. " * 12)
VARIANTS = (None, "pirate", "json")


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Engine:
    # A small step budget, so that prompts are split into chunks beside decoding rows.
    return Engine.from_pretrained(
        *(smollm2, ADAPTERS.joinpath),
        **{"device": "cpu", "dtype": "float32", "max_running": 16, "max_step_tokens": 48},
        max_adapters=2,
    )


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
            assert output.error is None
            assert output.position == len(tokens[output.request])
            tokens[output.request] += output.tokens
    return tokens


class Reference:
    """transformers + PEFT, one at a time."""

    def __init__(self, model: Path, tokenizer: Tokenizer) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self._peft = PeftModel.from_pretrained(base, ADAPTERS / "pirate", adapter_name="pirate")
        self._peft.load_adapter(ADAPTERS / "json", adapter_name="json")
        self._tokenizer = tokenizer

    def generate(self, variant: str | None, question: str) -> list[int]:
        ids = torch.tensor([prompt(self._tokenizer, question)])
        with self._as(variant):
            output = self._peft.generate(input_ids=ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        tokens: list[int] = output[0, ids.shape[1] :].tolist()
        return tokens

    def assert_same(self, got: list[int], variant: str | None, question: str) -> None:
        """Token for token; where the two best logits are one in float32's precision, either."""
        expected = self.generate(variant, question)
        at = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        if at is None:
            assert got == expected
            return
        with self._as(variant), torch.inference_mode():
            ids = prompt(self._tokenizer, question) + expected[:at]
            logits = self._peft(torch.tensor([ids])).logits[0, -1]
        gap = float(logits[expected[at]] - logits[got[at]])
        assert abs(gap) < 1e-5 * float(logits.abs().max()), f"token {at}: {gap} between the two"

    def _as(self, variant: str | None) -> AbstractContextManager[None]:
        if variant is None:
            disabled: AbstractContextManager[None] = self._peft.disable_adapter()
            return disabled
        self._peft.set_adapter(variant)
        return nullcontext()


@pytest.fixture(scope="module")
def reference(smollm2: Path, tokenizer: Tokenizer) -> Reference:
    return Reference(smollm2, tokenizer)


def test_mixed_batch_equals_peft_token_for_token(
    engine: Engine, tokenizer: Tokenizer, reference: Reference
) -> None:
    cases = {
        f"{variant}/{n}": (variant, question)
        for n, question in enumerate(QUESTIONS)
        for variant in VARIANTS
    }
    got = run(
        engine,
        [
            Request(name, prompt(tokenizer, question), Sampling(NEW_TOKENS), variant)
            for name, (variant, question) in cases.items()
        ],
    )
    for name, (variant, question) in cases.items():
        reference.assert_same(got[name], variant, question)
    assert len({tuple(got[f"{v}/0"]) for v in VARIANTS}) == 3, "variants must differ"


def test_a_resumed_request_goes_on_as_if_undisturbed(engine: Engine, tokenizer: Tokenizer) -> None:
    ids = prompt(tokenizer, QUESTIONS[1])
    for sampling in (Sampling(30), Sampling(30, seed=5, temperature=0.9, top_p=0.9)):
        whole = run(engine, [Request("whole", ids, sampling, "pirate")])["whole"]
        rest = run(engine, [Request("rest", ids, sampling, "pirate", whole[:11])])["rest"]
        assert rest == whole


def test_preempted_requests_finish_with_the_same_tokens(
    smollm2: Path, engine: Engine, tokenizer: Tokenizer
) -> None:
    small = Engine.from_pretrained(
        *(smollm2, ADAPTERS.joinpath),
        **{"device": "cpu", "dtype": "float32", "kv_cache_gib": 0.006},  # eight blocks or so
    )
    ids = prompt(tokenizer, QUESTIONS[0])
    requests = [Request(str(i), ids, Sampling(40, ignore_eos=True)) for i in range(4)]
    assert run(small, requests) == run(engine, requests)
    small.close()


def test_cancel_frees_everything(engine: Engine, tokenizer: Tokenizer) -> None:
    free = engine.room
    ids = prompt(tokenizer, QUESTIONS[0])
    for output in engine.stream(Request("r", ids, Sampling(50), "json")):
        assert output.position == 0
        break
    assert engine.cancel("r") is None
    engine.add(Request("r", ids, Sampling(50), "json"))
    assert engine.cancel("r") == Output("r", 0, [], "cancelled")
    assert (engine.room, engine.load, engine.step()) == (free, 0, [])


def test_what_does_not_fit_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TooLong, match="prompt tokens"):
        engine.add(Request("r", [1] * engine.capacity, Sampling(1)))
    with pytest.raises(AdapterRefused, match="can't be read"):
        engine.generate([Request("r", [1], Sampling(1), str(tmp_path))])
    assert engine.load == 0


def test_a_request_that_outgrows_the_cache_ends_there(smollm2: Path) -> None:
    small = Engine.from_pretrained(smollm2, device="cpu", dtype="float32", kv_cache_gib=0.006)
    *_, last = small.stream(Request("r", [1] * 9, Sampling(10**6, ignore_eos=True)))
    assert (last.finish, last.position + 1 + 9) == ("length", small.capacity)
    small.close()


@pytest.mark.parametrize(
    ("prompt_ids", "sampling"),
    [
        ([10**6], Sampling(1)),
        ([-1], Sampling(1)),
        ([1], Sampling(1, logit_bias={10**6: 1.0})),
        ([1], Sampling(1, logit_bias={1: float("nan")})),
        ([1], Sampling(1, stop_ids=(10**6,))),
        ([1], Sampling(1, repetition_penalty=1e-300)),
        ([1], Sampling(1, temperature=float("nan"))),
        ([1], Sampling(0)),
    ],
)
def test_what_would_fail_in_a_batch_is_refused(
    engine: Engine, prompt_ids: list[int], sampling: Sampling
) -> None:
    with pytest.raises(InvalidRequest):
        engine.add(Request("r", prompt_ids, sampling))
    assert engine.load == 0


def test_prompts_cut_to_single_tokens_run_beside_decoding_ones(smollm2: Path) -> None:
    tight = Engine.from_pretrained(
        smollm2, device="cpu", dtype="float32", max_running=4, max_step_tokens=4
    )
    sampling = Sampling(8, ignore_eos=True)
    requests = [Request(str(i), [5 + i] * (3 * i + 1), sampling) for i in range(6)]
    together = tight.generate(requests)
    assert together == {r.id: tight.generate([r])[r.id] for r in requests}
    tight.close()


def test_an_answer_that_must_match_a_schema_does(engine: Engine, tokenizer: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "size": {"type": "integer"}},
        "required": ["city", "size"],
        "additionalProperties": False,
    }
    ids = prompt(tokenizer, QUESTIONS[0])
    grammar = Grammar("json_schema", json.dumps(schema))
    for sampling in (
        Sampling(80, grammar=grammar),
        Sampling(80, grammar=grammar, temperature=1.2, seed=7),
    ):
        whole = engine.generate([Request("g", ids, sampling)])["g"]
        answer = json.loads(tokenizer.decode(whole))
        assert set(answer) == {"city", "size"} and isinstance(answer["size"], int)
        rest = engine.generate([Request("g", ids, sampling, produced=whole[:5])])["g"]
        assert rest == whole, "another replica goes on in the same place of the grammar"
    with pytest.raises(GrammarRefused):
        engine.generate([Request("g", ids, Sampling(8, grammar=Grammar("regex", "(")))])
    assert engine.load == 0
