"""The split of a cold start: its parts follow each other, and waiting for work is none of them."""

import time

import pytest

from gpu_worker.split import Split


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last value is now."""
    times = [100.0]
    monkeypatch.setattr(time, "time", lambda: times[-1])
    return times


def begun(clock: list[float], asked_at: float | None = 99.5) -> Split:
    split = Split(asked_at, 100.0)
    clock.append(101.0)
    split.imported()
    clock.append(103.0)
    split.loaded()
    return split


def parts(split: Split) -> tuple[float, ...]:
    known = split.cold_start
    assert known is not None
    return (known.spawn_s, known.import_s, known.load_s, known.first_token_s)


def test_the_first_token_counts_from_the_load_where_a_job_waited(clock: list[float]) -> None:
    split = begun(clock)
    assert parts(split) == (0.5, 1.0, 2.0, 0.0)
    assert split.ready_after_s == 3.0
    clock.append(103.1)
    split.looked(2)
    clock.append(103.5)
    split.first_token()
    assert parts(split) == (0.5, 1.0, 2.0, 0.5)
    clock.append(200.0)
    split.first_token()
    assert parts(split)[-1] == 0.5


def test_it_counts_from_its_first_job_where_none_waited(clock: list[float]) -> None:
    split = begun(clock, asked_at=None)
    split.looked(0)
    clock.append(500.0)
    split.looked(1)
    clock.append(500.25)
    split.first_token()
    assert parts(split) == (0.0, 1.0, 2.0, 0.25)


def test_a_clock_that_is_behind_makes_no_negative_time(clock: list[float]) -> None:
    assert parts(begun(clock, asked_at=101.0))[0] == 0.0
