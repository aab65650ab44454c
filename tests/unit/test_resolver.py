"""What is remembered of models: one look for all who ask, and none that waits for a second one."""

import asyncio
from typing import Any

import pytest

from api.errors import ApiError
from api.requests import resolver
from api.requests.resolver import Resolved, Resolver, Variant


class Looks(Resolver):
    """Counts its looks; an ApiError in `answers` is raised."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(None, None, None, None)  # type: ignore[arg-type]
        self.answers = list(answers)
        self.looks = 0

    def _look(self, tenant: str, model: str, merge: Any) -> Any:
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ApiError):
            raise answer
        return answer


def test_many_who_ask_at_once_are_one_look() -> None:
    async def main() -> None:
        looks = Looks("one")
        found = await asyncio.gather(*(looks.resolve("t", "m") for _ in range(50)))
        assert found == ["one"] * 50 and looks.looks == 1
        await looks.resolve("t", "other")
        assert looks.looks == 2

    asyncio.run(main())


def test_what_was_changed_is_looked_at_again() -> None:
    async def main() -> None:
        looks = Looks("one", "two")
        assert await looks.resolve("t", "m") == "one"
        assert await looks.resolve("t", "m") == "one"
        looks.forget()
        assert await looks.resolve("t", "m") == "two"

    asyncio.run(main())


def test_refusals_are_not_remembered_and_reach_all_who_ask() -> None:
    async def main() -> None:
        looks = Looks(ApiError(404, "model_not_found", "no"), "one")
        asked = [looks.resolve("t", "m") for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, ApiError) for each in found) and looks.looks == 1
        assert await looks.resolve("t", "m") == "one"

    asyncio.run(main())


def test_nobody_waits_while_it_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        looks = Looks("one", "two")
        assert await looks.resolve("t", "m") == "one"
        monkeypatch.setattr(resolver, "REMEMBERED_S", 0.0)
        assert await looks.resolve("t", "m") == "two", "it is too old by now"
        monkeypatch.setattr(resolver.time, "monotonic", lambda: 1e9)
        monkeypatch.setattr(resolver, "REMEMBERED_S", 1.0)
        looks._known[("t", "m", None)] = (1e9 - 1.5, "two")  # type: ignore[assignment]
        looks.answers = ["three"]
        assert await looks.resolve("t", "m") == "two"
        while looks._looking:
            await asyncio.sleep(0)
        assert await looks.resolve("t", "m") == "three"

    asyncio.run(main())


def test_an_alias_is_split_by_weights_and_a_key_stays_where_it_is() -> None:
    variants = (Variant("a/1", "d1", 90), Variant("a/2", "d2", 9), Variant("a/3", "d3", 1))
    resolved = Resolved(None, None, variants)  # type: ignore[arg-type]
    drawn = [resolved.variant(f"user {number}").name for number in range(20_000)]
    assert drawn == [resolved.variant(f"user {number}").name for number in range(20_000)]
    shares = {name: drawn.count(name) / 20_000 for name in ("a/1", "a/2", "a/3")}
    assert abs(shares["a/1"] - 0.9) < 0.01 and abs(shares["a/2"] - 0.09) < 0.01
    assert 0.005 < shares["a/3"] < 0.015
    assert Resolved(None, None).variant("x").digest is None  # type: ignore[arg-type]
