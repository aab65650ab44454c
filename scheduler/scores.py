"""How good an answer is, from 0 to 1. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from loraplex.json_schema import allows, validator

_ROUGE = ("rouge1", "rouge2", "rougeL")
_MOST_WORDS = 500  # of a text that ROUGE compares: its longest common sequence is quadratic


class Scorer:
    """`exact_match`: but for spaces at the ends. `rouge1`, `rouge2`, `rougeL`: F1 (Lin 2004) of
    the first 500 words, as Google's `rouge-score` has it. `valid_json`: allowed by the schema."""

    def __init__(self, metrics: Sequence[str], json_schema: Mapping[str, Any] | None) -> None:
        self._exact = "exact_match" in metrics
        self._rouge = RougeScorer(list(_ROUGE)) if "rouge" in metrics else None
        self._schema = validator(json_schema) if json_schema is not None else None

    @property
    def names(self) -> list[str]:
        found = ["exact_match"] if self._exact else []
        found += _ROUGE if self._rouge else ()
        return [*found, "valid_json"] if self._schema else found

    def score(self, answer: str | None, expected: str) -> dict[str, float]:
        """None: there is no answer, which is worth nothing."""
        if answer is None:
            return dict.fromkeys(self.names, 0.0)
        found: dict[str, float] = {}
        if self._exact:
            found["exact_match"] = float(answer.strip() == expected.strip())
        if self._rouge:
            cut = (" ".join(text.split()[:_MOST_WORDS]) for text in (expected, answer))
            found |= {name: score.fmeasure for name, score in self._rouge.score(*cut).items()}
        if self._schema:
            found["valid_json"] = float(allows(self._schema, answer))
        return found
