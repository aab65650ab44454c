"""Hours with other `min_replicas`."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from scheduler.scaling import Scaling
from scheduler.schedules import in_force

WEEKDAYS = {
    "days": ["mon", "tue", "wed", "thu", "fri"],
    "start": "08:00",
    "end": "18:00",
    "timezone": "Europe/Berlin",
    "min_replicas": 2,
}
NIGHTS = {"start": "22:00", "end": "06:00", "timezone": "UTC", "min_replicas": 1}
BOUNDS = Scaling(min_replicas=0, max_replicas=1)


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("when", "low"),
    [
        ("2026-11-25T07:59", 0),  # a Wednesday
        ("2026-11-25T08:00", 2),
        ("2026-11-25T17:59", 2),
        ("2026-11-25T18:00", 0),
        ("2026-11-28T12:00", 0),  # a Saturday
        ("2026-07-01T08:00", 2),  # in summer time
    ],
)
def test_weekdays_from_eight_to_six(when: str, low: int) -> None:
    assert in_force(BOUNDS, [WEEKDAYS], at(when)).min_replicas == low


@pytest.mark.parametrize(("when", "low"), [("23:30", 1), ("05:59", 1), ("06:00", 0), ("21:59", 0)])
def test_hours_over_midnight(when: str, low: int) -> None:
    assert in_force(BOUNDS, [NIGHTS], at(f"2026-11-25T{when}", "UTC")).min_replicas == low


def test_an_evening_that_began_yesterday_counts_for_yesterdays_day() -> None:
    friday_night = NIGHTS | {"days": ["fri"]}
    assert in_force(BOUNDS, [friday_night], at("2026-11-28T03:00", "UTC")).min_replicas == 1
    assert in_force(BOUNDS, [friday_night], at("2026-11-27T03:00", "UTC")).min_replicas == 0


def test_the_highest_wins_and_raises_max_replicas() -> None:
    both = [WEEKDAYS, NIGHTS | {"start": "00:00", "end": "23:59", "min_replicas": 1}]
    found = in_force(BOUNDS, both, at("2026-11-25T12:00"))
    assert (found.min_replicas, found.max_replicas) == (2, 2)
