"""What a client is told of its place in a queue."""

from typing import Any

import pytest

from api.requests.queues import Place, estimate
from loraplex.explanation import Explanation


def known(cold_start_s: float = 20.0, since: float | None = None, **inputs: float) -> Explanation:
    facts: dict[str, float] = {"slots": 8, "hold_s": 4.0, "ready": 1} | inputs
    return Explanation(0.0, 1, 1, 1, "", facts, [], since, cold_start_s)


@pytest.mark.parametrize(
    ("ahead", "explanation", "starting_s", "eta_s"),
    [
        (0, known(), None, 0.0),
        (16, known(), None, 8.0),
        (16, known(ready=2), None, 4.0),
        (0, known(ready=0, since=95.0), 15.0, 15.0),
        (8, known(ready=0, since=95.0), 15.0, 19.0),
        (0, known(ready=0), 20.0, 20.0),  # not asked for yet
        (0, known(ready=0, since=10.0), 0.0, 0.0),  # it takes longer than ever
        (3, known(ready=0, cold_start_s=0.0), None, None),
        (3, None, None, None),
    ],
)
def test_a_place_is_turns_and_a_cold_start(
    ahead: int, explanation: Any, starting_s: float | None, eta_s: float | None
) -> None:
    found = estimate(ahead, explanation, 100.0)
    assert (found.ahead, found.starting_s, found.eta_s) == (ahead, starting_s, eta_s)


def test_what_clients_read() -> None:
    assert Place(3, None, 11.2).text == "queued, 3 ahead, about 12 s"
    assert Place(0, 8.04, 8.0).text == "starting a replica, ready in about 8 s, 0 ahead"
    assert Place(2).text == "queued, 2 ahead, waiting for a replica"
    assert Place(2, None, 1.25).headers == {"x-queue-ahead": "2", "x-queue-eta-s": "1.2"}
