"""Position is identity: repeats are dropped, gaps are noticed, the order holds."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from api.requests.inflight import Inflight
from api.requests.waiting import MOST_EVENTS, Waiting
from loraplex.broker.connection import Unavailable
from loraplex.keys import Lane
from loraplex.messages import Logprobs, Step, TokenEvent

OUTPUT = list(range(100, 112))
SPANS = st.tuples(st.integers(0, 11), st.integers(1, 5))


def received(waiting: Waiting) -> list[int]:
    tokens: list[int] = []
    while (event := waiting.pop()) is not None:
        assert event.position == len(tokens)
        tokens += event.tokens
    return tokens


@given(spans=st.lists(SPANS, max_size=30))
def test_whatever_arrives_the_tokens_are_a_prefix_in_order(spans: list[tuple[int, int]]) -> None:
    waiting = Waiting(Lane("m", "d"), "r")
    for start, size in spans:
        before = waiting.position
        accepted = waiting.accept(TokenEvent("r", start, OUTPUT[start : start + size]))
        assert accepted == (start <= before)
    assert received(waiting) == OUTPUT[: waiting.position]


def test_what_is_known_of_a_repeated_token_is_dropped_with_it() -> None:
    waiting = Waiting(Lane("m", "d"), "r")
    known = [Logprobs(-float(i), []) for i in range(3)]
    waiting.accept(TokenEvent("r", 0, [5, 6], logprobs=known[:2]))
    waiting.accept(TokenEvent("r", 1, [6, 7], logprobs=known[1:]))
    events = [waiting.pop() for _ in range(2)]
    assert [e and e.logprobs for e in events] == [known[:2], known[2:]]


def test_the_end_comes_once_and_nothing_after_it() -> None:
    waiting = Waiting(Lane("m", "d"), "r")
    last = TokenEvent("r", 0, [1, 2], "stop")
    assert waiting.accept(last) and waiting.accept(last)
    assert waiting.accept(TokenEvent("r", 2, [3]))
    assert (received(waiting), waiting.ended) == ([1, 2], True)


def test_an_end_beyond_a_gap_waits_for_the_journal() -> None:
    waiting = Waiting(Lane("m", "d"), "r")
    assert not waiting.accept(TokenEvent("r", 3, [], "stop"))
    assert not waiting.ended


class Journal:
    """A lane's journal; unreadable at the first try."""

    def __init__(self, events: list[TokenEvent]) -> None:
        self._entries = [(f"{i}-0", Step("a", [event])) for i, event in enumerate(events, 1)]
        self._readable = False
        self.reads = 0

    async def journal(self, lane: Lane, after: str) -> list[tuple[str, Step]]:
        if not self._readable:
            self._readable = True
            raise Unavailable[0]("away")
        self.reads += 1
        start = int(after.split("-")[0])
        return self._entries[max(0, start) :][:50]


def filled(events: list[TokenEvent]) -> Waiting:
    waiting = Waiting(Lane("m", "d"), "r", "1-0")
    asyncio.run(Inflight(Journal(events))._fill([waiting]))  # type: ignore[arg-type]
    return waiting


def test_an_answer_of_the_scaler_ends_a_stream_that_missed_it() -> None:
    """`answer_stranded` writes beyond the last token, because it doesn't know which that is."""
    waiting = filled([TokenEvent("r", 0, [1, 2]), TokenEvent("r", 99, [], "error", "stopped")])
    assert (received(waiting), waiting.ended) == ([1, 2], True)


def test_tokens_that_are_kept_no_longer_are_an_error_not_a_leap() -> None:
    waiting = filled([TokenEvent("r", 7, [1, 2])])
    event = waiting.pop()
    assert event is not None and (event.finish, event.error_code) == ("error", "answer_expired")


def test_a_slow_reader_is_a_cursor() -> None:
    """Its buffer is bounded; what it missed comes from the journal, each token once."""
    events = [TokenEvent("r", i, [i]) for i in range(5 * MOST_EVENTS)]
    events[-1] = TokenEvent("r", len(events) - 1, [len(events) - 1], "stop")
    journal = Journal(events)

    async def read_slowly() -> list[int]:
        inflight = Inflight(journal)  # type: ignore[arg-type]
        waiting = Waiting(Lane("m", "d"), "r", "1-0")
        for event in events:
            assert waiting.accept(event)
        assert waiting.behind and len(waiting._events) == MOST_EVENTS
        tokens: list[int] = []
        while True:
            event = await inflight.next(waiting, time.time() + 60)
            assert len(waiting._events) <= MOST_EVENTS
            tokens += event.tokens
            if event.finish:
                return tokens

    assert asyncio.run(read_slowly()) == list(range(len(events)))
    assert journal.reads < 2 * len(events) / 50, "it goes on where it was"
