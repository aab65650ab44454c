"""Position is identity: repeats are dropped, gaps are noticed, the order holds."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.requests.catch_up import KEPT_NO_LONGER, LOST
from api.requests.inflight import Inflight
from api.requests.waiting import MOST_EVENTS, MOST_TOKENS, Waiting
from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import Page
from loraplex.keys import Lane
from loraplex.messages import Logprobs, Step, TokenEvent

LANE = Lane("m", "d")
NO_LIMITS: Any = None  # nothing is held for these
OUTPUT = list(range(100, 112))
SPANS = st.tuples(st.integers(0, 11), st.integers(1, 5))


def received(waiting: Waiting) -> list[int]:
    tokens: list[int] = []
    for event in waiting.pop():
        assert event.position == len(tokens)
        tokens += event.tokens
    return tokens


@given(spans=st.lists(SPANS, max_size=30))
def test_whatever_arrives_the_tokens_are_a_prefix_in_order(spans: list[tuple[int, int]]) -> None:
    waiting = Waiting(LANE, "r", "1-0")
    for start, size in spans:
        before, waiting.behind = waiting.position, False
        waiting.accept(TokenEvent("r", start, OUTPUT[start : start + size]), "1-0")
        assert waiting.behind == (start > before)
    assert received(waiting) == OUTPUT[: waiting.position]


def test_what_is_known_of_a_repeated_token_is_dropped_with_it() -> None:
    waiting = Waiting(LANE, "r", "1-0")
    known = [Logprobs(-float(i), []) for i in range(3)]
    waiting.accept(TokenEvent("r", 0, [5, 6], logprobs=known[:2]), "1-0")
    waiting.accept(TokenEvent("r", 1, [6, 7], logprobs=known[1:]), "2-0")
    assert [event.logprobs for event in waiting.pop()] == [known[:2], known[2:]]


def test_the_end_comes_once_and_nothing_after_it() -> None:
    waiting = Waiting(LANE, "r", "1-0")
    last = TokenEvent("r", 0, [1, 2], "stop")
    for event in (last, last, TokenEvent("r", 2, [3])):
        waiting.accept(event, "1-0")
    assert (received(waiting), waiting.ended) == ([1, 2], True)


def test_an_end_beyond_a_gap_waits_for_the_journal() -> None:
    waiting = Waiting(LANE, "r", "1-0")
    waiting.accept(TokenEvent("r", 3, [], "stop"), "1-0")
    assert (waiting.ended, waiting.behind) == (False, True)


def test_tokens_that_come_before_its_job_is_known_are_read_from_the_journal() -> None:
    """They may be of an earlier request with the same Idempotency-Key."""
    waiting = Waiting(LANE, "r")
    waiting.accept(TokenEvent("r", 0, [7]), "5-0")
    waiting.entry, waiting.after = "6-0", "5-1"
    waiting.accept(TokenEvent("r", 0, [8], "cancelled"), "5-1")
    assert (waiting.pop(), waiting.behind, waiting.ended) == ([], True, False)


def test_a_late_reader_finds_several_tokens_in_an_event() -> None:
    waiting = Waiting(LANE, "r", "1-0")
    known = [Logprobs(-1.0, [])]
    for position in range(MOST_EVENTS + 9):
        waiting.accept(TokenEvent("r", position, [position], logprobs=known), "1-0")
    waiting.accept(TokenEvent("r", MOST_EVENTS + 9, [], "stop"), "2-0")
    events = waiting.pop()
    assert len(events) == MOST_EVENTS and len(events[-1].tokens) == 10
    assert (events[-1].logprobs, events[-1].finish) == (known * 10, "stop")


class Journal:
    """A lane's journal; unreadable at the first try, and some entries a page."""

    def __init__(self, events: list[TokenEvent], page: int = 50) -> None:
        self.entries = [(f"{i}-0", Step("a", [event])) for i, event in enumerate(events, 1)]
        self._readable = False
        self._page = page
        self.reads = 0

    async def journal_page(self, lane: Lane, start: str, most: int) -> Page:
        if not self._readable:
            self._readable = True
            raise Unavailable[0]("away")
        self.reads += 1
        found = self.entries[max(0, int(start.split("-")[0]) - 1) :]
        steps = found[: self._page]
        return Page(steps, steps[-1][0] if steps else None, len(steps) == self._page)


async def read(journal: Journal, waiting: Waiting, seconds: float = 60) -> list[TokenEvent]:
    inflight, events = Inflight(journal, NO_LIMITS), []  # type: ignore[arg-type, var-annotated]
    while not (events and events[-1].finish):
        events += await inflight.next(waiting, time.time() + seconds)
    return events


def behind(request: str = "r", after: str = "0-0") -> Waiting:
    waiting = Waiting(LANE, request, "1-0", after)
    waiting.fall_behind()
    return waiting


def tokens_of(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.tokens]


def test_an_answer_of_the_scaler_ends_a_stream_that_missed_it() -> None:
    """`answer_stranded` writes beyond the last token, because it doesn't know which that is."""
    journal = Journal([TokenEvent("r", 0, [1, 2]), TokenEvent("r", 99, [], "error", "stopped")])
    events = asyncio.run(read(journal, behind()))
    assert (tokens_of(events), events[-1].error) == ([1, 2], "stopped")


def test_tokens_that_are_kept_no_longer_are_an_error_not_a_leap() -> None:
    events = asyncio.run(read(Journal([TokenEvent("r", 7, [1, 2])]), behind()))
    assert [(each.tokens, each.error_code) for each in events] == [([], "answer_expired")]


@pytest.mark.parametrize("code", [KEPT_NO_LONGER, LOST])
def test_an_answer_whose_job_is_gone_and_that_has_no_end_is_an_error(code: str) -> None:
    waiting = behind()
    waiting.over = code
    events = asyncio.run(read(Journal([TokenEvent("other", 0, [1])]), waiting))
    assert [each.error_code for each in events] == [code]


def test_an_answer_whose_job_is_gone_has_its_end_in_the_journal() -> None:
    waiting = behind()
    waiting.over = LOST
    events = asyncio.run(read(Journal([TokenEvent("r", 0, [1], "stop")]), waiting))
    assert [each.finish for each in events] == ["stop"]


@pytest.mark.parametrize("seconds", [-60.0, 60.0])
def test_a_request_can_be_read_again_when_its_deadline_is_past(seconds: float) -> None:
    journal = Journal([TokenEvent("r", 0, [1, 2]), TokenEvent("r", 2, [3], "stop")])
    assert tokens_of(asyncio.run(read(journal, behind(), seconds))) == [1, 2, 3]


def test_past_its_deadline_nothing_is_waited_for() -> None:
    events = asyncio.run(read(Journal([]), Waiting(LANE, "r", "1-0"), -1))
    assert [each.finish for each in events] == ["expired"]


def test_an_earlier_request_with_the_same_key_is_another() -> None:
    """One page serves both: it begins where the first of them needs it."""
    old = [TokenEvent("r", 0, [7]), TokenEvent("r", 1, [], "cancelled")]
    new = [TokenEvent("s", 0, [1], "stop"), TokenEvent("r", 0, [2], "stop")]
    journal = Journal(old + new)

    async def both() -> list[list[int]]:
        inflight = Inflight(journal, NO_LIMITS)  # type: ignore[arg-type]
        answers = [behind("s"), behind("r", "2-0")]
        found = await asyncio.gather(*(inflight.next(w, time.time() + 60) for w in answers))
        return [tokens_of(events) for events in found]

    assert asyncio.run(both()) == [[1], [2]]


def test_a_page_that_live_tokens_overtake_is_used_nevertheless() -> None:
    """While the journal is read the channel goes on: at each page there is a new gap."""
    journal = Journal([TokenEvent("r", i, [i]) for i in range(3)])
    waiting = behind()
    page = journal.journal_page

    async def overtaken(lane: Lane, start: str, most: int) -> Page:
        found = await page(lane, start, most)
        waiting.accept(TokenEvent("r", 90, [90]), "91-0")
        return found

    journal.journal_page = overtaken  # type: ignore[method-assign]

    async def first() -> list[TokenEvent]:
        return await Inflight(journal, NO_LIMITS).next(waiting, time.time() + 60)  # type: ignore[arg-type]

    assert tokens_of(asyncio.run(first())) == [0, 1, 2]
    assert waiting.behind, "the rest is in the journal"


def test_a_slow_reader_is_a_cursor() -> None:
    """Its buffer is bounded; what it missed comes from the journal, each token once."""
    events = [TokenEvent("r", i, [i]) for i in range(5 * MOST_TOKENS)]
    events[-1] = TokenEvent("r", len(events) - 1, [len(events) - 1], "stop")
    journal = Journal(events)
    waiting = Waiting(LANE, "r", "1-0")
    for (entry, _), event in zip(journal.entries, events, strict=True):
        waiting.accept(event, entry)
    assert waiting.behind and waiting.position == MOST_TOKENS
    assert tokens_of(asyncio.run(read(journal, waiting))) == list(range(len(events)))
    assert journal.reads < 1.2 * len(events) / 50, "it goes on where it was"


def test_one_page_serves_all_that_are_behind() -> None:
    names = [f"r{i}" for i in range(20)]
    events = [[TokenEvent(name, i, [i], "stop" if i == 99 else None) for name in names]
              for i in range(100)]  # fmt: skip
    journal = Journal([])
    journal.entries = [(f"{i}-0", Step("a", step)) for i, step in enumerate(events, 1)]

    async def all_of_them() -> list[list[int]]:
        inflight = Inflight(journal, NO_LIMITS)  # type: ignore[arg-type]

        async def one(waiting: Waiting) -> list[int]:
            tokens: list[int] = []
            while not waiting.ended or waiting.ready:
                tokens += tokens_of(await inflight.next(waiting, time.time() + 60))
            return tokens

        return await asyncio.gather(*(one(behind(name)) for name in names))

    assert asyncio.run(all_of_them()) == [list(range(100))] * 20
    assert journal.reads <= 5
