"""Position is identity: repeats are dropped, gaps are noticed, the order holds."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from api.requests.inflight import Inflight, Waiting
from loraplex.broker.connection import Unavailable
from loraplex.keys import Lane
from loraplex.messages import Logprobs, TokenEvent

OUTPUT = list(range(100, 112))
SPANS = st.tuples(st.integers(0, 11), st.integers(1, 5))


def received(waiting: Waiting) -> list[int]:
    tokens = []
    while not waiting.events.empty():
        event = waiting.events.get_nowait()
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
    events = [waiting.events.get_nowait() for _ in range(2)]
    assert [e.logprobs for e in events] == [known[:2], known[2:]]


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
    """The journal of one request; unreadable at the first try."""

    def __init__(self, events: list[TokenEvent]) -> None:
        self._events = events
        self._readable = False

    async def journalled(self, *_: object) -> list[TokenEvent]:
        if not self._readable:
            self._readable = True
            raise Unavailable[0]("away")
        return self._events


def test_an_answer_of_the_scaler_ends_a_stream_that_missed_it() -> None:
    """`answer_stranded` writes beyond the last token, because it doesn't know which that is."""
    events = [TokenEvent("r", 0, [1, 2]), TokenEvent("r", 99, [], "error", "stopped")]
    waiting = Waiting(Lane("m", "d"), "r")
    waiting.entry = "1-0"
    asyncio.run(Inflight(Journal(events))._fill([waiting]))  # type: ignore[arg-type]
    assert (received(waiting), waiting.ended) == ([1, 2], True)
