"""Suspects run alone, one after the other; Redis knows of each before it runs."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.probation import HARMLESS_AFTER, Probation
from loraplex.broker.interface import TakenJob
from loraplex.messages import Job, Sampling


def suspect(number: int) -> TakenJob:
    job = Job(f"r{number}", "api", "dev", None, [1], Sampling(8, 0), 2e9)
    return TakenJob(f"{number}-0", job, 2, 0, True)


@given(
    count=st.integers(0, 5),
    events=st.lists(st.tuples(st.sampled_from(["token", "end"]), st.integers(0, 4))),
)
def test_one_at_a_time_and_announced(count: int, events: list[tuple[str, int]]) -> None:
    probation = Probation()
    for number in range(count):
        probation.add(suspect(number))
    announced = ""
    ran: list[str] = []
    for kind, number in [*events, *(("token", n) for n in range(count) for _ in range(4))]:
        started = probation.start()
        if started is not None:
            assert announced == started.entry, "Redis was told before"
            ran.append(started.entry)
        if probation.running is not None:
            assert announced == probation.running.entry
        if kind == "token":
            running = probation.running
            probation.produced(running.job.request if running else f"r{number}", 1)
        else:
            probation.ended(f"r{number}")
        told = probation.announcement(quiet=True)
        announced = announced if told is None else told
    assert len(ran) == len(set(ran))


def test_a_suspect_is_harmless_after_a_few_tokens() -> None:
    probation = Probation()
    probation.add(suspect(1))
    assert probation.start() is None and probation.announcement(quiet=True) == "1-0"
    assert probation.start() is not None
    for _ in range(HARMLESS_AFTER):
        assert probation.running is not None and not probation.idle
        probation.produced("other", 5)
        probation.produced("r1", 1)
    assert probation.idle and probation.announcement(quiet=True) == ""


def test_a_suspect_that_ends_before_its_turn_is_skipped() -> None:
    probation = Probation()
    probation.add(suspect(1))
    probation.add(suspect(2))
    assert probation.announcement(quiet=True) == "1-0"
    probation.ended("r1")
    assert probation.start() is None
    assert probation.announcement(quiet=True) == "2-0"
    started = probation.start()
    assert started is not None and started.entry == "2-0"
