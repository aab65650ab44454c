"""Output that must match a JSON schema, a regular expression or a grammar, through llguidance.

Grammars are compiled, and the next mask computed, in threads: a request joins the batch when
its grammar is ready, and a mask is made while the forward pass runs. llguidance drops the GIL.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_worker.engine.request import Grammar, GrammarRefused

_STEP_FUEL = 50_000  # of llguidance's lexer, for one mask: some tens of milliseconds


@dataclass(slots=True)
class _Matcher:
    """One request's place in its grammar."""

    matcher: Any
    mask: "Future[torch.Tensor]"


class Grammars:
    """The constrained requests of an engine. llguidance is loaded with the first of them."""

    def __init__(self, model_folder: Path, vocabulary: int, eos: frozenset[int]) -> None:
        self._folder = model_folder
        self._vocabulary = vocabulary
        self._eos = sorted(eos)
        self._compilers = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._threads = ThreadPoolExecutor(
            2, thread_name_prefix="masks"
        )  # never wait for a compiler
        self._tokenizer: Future[Any] | None = None
        self._building: dict[str, Future[_Matcher]] = {}
        self._matchers: dict[str, _Matcher] = {}

    def begin(self, request: str, grammar: Grammar, produced: list[int]) -> None:
        """Start to compile; `produced` are tokens that the output has already."""
        if self._tokenizer is None:
            self._tokenizer = self._compilers.submit(self._load_tokenizer)
        self._building[request] = self._compilers.submit(self._build, grammar, produced)

    def ready(self, request: str) -> bool:
        """Whether the request can join. Raises GrammarRefused."""
        building = self._building.get(request)
        if building is None or not building.done():
            return building is None
        del self._building[request]
        self._matchers[request] = building.result()
        return True

    def allowed(self, request: str) -> torch.Tensor:
        """bool [vocabulary]: the tokens that may come next. Raises GrammarRefused."""
        return self._matchers[request].mask.result()

    def accept(self, request: str, token: int, *, ends: bool) -> bool:
        """The output goes on with `token`, which `ends` it or not. True: nothing can follow it.

        Raises GrammarRefused where the output doesn't match and can't any more.
        """
        state = self._matchers[request]
        if ends:
            if not state.matcher.is_accepting():
                raise GrammarRefused("the output can't match the grammar")
            return True
        state.matcher.consume_token(token)
        _check(state.matcher)
        if state.matcher.is_stopped():
            return True
        state.mask = self._threads.submit(self._mask, state.matcher)
        return False

    def end(self, request: str) -> None:
        building = self._building.pop(request, None)
        if building is not None:
            building.cancel()
        self._matchers.pop(request, None)

    def close(self) -> None:
        for threads in (self._compilers, self._threads):
            threads.shutdown(wait=True, cancel_futures=True)

    def _load_tokenizer(self) -> Any:
        import llguidance

        text = (self._folder / "tokenizer.json").read_text()
        return llguidance.LLTokenizer(text, n_vocab=self._vocabulary, eos_token=self._eos)

    def _build(self, grammar: Grammar, produced: list[int]) -> _Matcher:
        from llguidance import LLMatcher
        from llguidance._lib import LLParserLimits

        assert self._tokenizer is not None
        make = {
            "json_schema": LLMatcher.grammar_from_json_schema,
            "regex": LLMatcher.grammar_from_regex,
            "lark": LLMatcher.grammar_from_lark,
        }
        try:
            source = make[grammar.kind](grammar.source)
            limits = LLParserLimits(step_lexer_fuel=_STEP_FUEL)
            matcher = LLMatcher(self._tokenizer.result(), source, log_level=0, limits=limits)
        except Exception as broken:  # of the schema, of the tokenizer
            reason = " ".join(str(broken).split())
            raise GrammarRefused(f"{grammar.kind}: {reason[:500]}") from broken
        for token in produced:
            matcher.consume_token(token)
        _check(matcher)
        return _Matcher(matcher, self._threads.submit(self._mask, matcher))

    def _mask(self, matcher: Any) -> torch.Tensor:
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        _check(matcher)
        if not allowed.any():
            raise GrammarRefused("nothing can follow the output in this grammar")
        return torch.from_numpy(allowed)


def _check(matcher: Any) -> None:
    """Raises GrammarRefused: a limit was met, or a token that doesn't fit."""
    if matcher.is_error():
        reason = " ".join(str(matcher.get_error()).split())
        raise GrammarRefused(f"the grammar can't be followed: {reason[:300]}")
