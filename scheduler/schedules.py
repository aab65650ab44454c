"""Hours in which a deployment has other `min_replicas`: "two on weekdays from 8 to 18". Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from loraplex.schedule import DAYS
from scheduler.scaling import Scaling


def in_force(cfg: Scaling, schedules: Sequence[Mapping[str, Any]], now: float) -> Scaling:
    """The knobs as they are at `now` (Unix seconds). The highest of the schedules that hold wins;
    where none holds, `cfg` as it is. `max_replicas` is raised where it would be exceeded."""
    holding = [int(s["min_replicas"]) for s in schedules if holds(s, now)]
    if not holding:
        return cfg
    low = max(holding)
    high = max(low, cfg.max_replicas)
    return replace(cfg, min_replicas=low, max_replicas=high, scheduled=True)


def holds(schedule: Mapping[str, Any], now: float) -> bool:
    """From `start` (included) to `end` (not included) on `days`, in its own time zone; an `end`
    before the `start` is on the next day."""
    local = datetime.fromtimestamp(now, ZoneInfo(schedule.get("timezone", "UTC")))
    minute = f"{local:%H:%M}"
    start, end = schedule["start"], schedule["end"]
    days = set(schedule.get("days") or DAYS)
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if start < end:
        return today in days and start <= minute < end
    return (today in days and minute >= start) or (yesterday in days and minute < end)
