"""Trailing windows as values, each step of constant cost: the mean of a count, the highest of some
answers. The laws are called 86,400 times for a day, so nothing is summed twice."""

from dataclasses import dataclass

Peaks = tuple[tuple[float, int], ...]  # (time, value): later, and lower, from left to right


@dataclass(frozen=True, slots=True)
class Level:
    """A count that holds from one look to the next, and its area (count x seconds) at the last
    ticks of a grid: two of those areas give the mean between them."""

    at: float  # seconds: the last look
    value: int
    area: float  # until `at`
    marks: tuple[float, ...]  # the area at the last ticks, newest last
    marked_at: float  # the newest tick

    @classmethod
    def begin(cls, value: int, now: float, ticks: int) -> "Level":
        """A grid that starts now and answers for windows of up to `ticks` ticks."""
        return cls(now, value, 0.0, (0.0,) * (ticks + 1), now)

    def look(self, value: int, now: float, tick_s: float) -> "Level":
        area = self.area + self.value * (now - self.at)
        passed = int((now - self.marked_at) // tick_s)
        if not passed:
            return Level(now, value, area, self.marks, self.marked_at)
        size = len(self.marks)
        ticks = range(max(1, passed - size + 1), passed + 1)
        start = self.area + self.value * (self.marked_at - self.at)
        marks = (*self.marks[len(ticks) :], *(start + self.value * tick_s * k for k in ticks))
        return Level(now, value, area, marks, self.marked_at + tick_s * passed)

    def mean(self, ticks: int, tick_s: float, since: float) -> float:
        """Over the last `ticks` before the newest one; only over what is later than `since`, before
        which the count was 0 or unknown. The count itself where that leaves nothing."""
        seconds = min(ticks * tick_s, self.marked_at - since)
        if seconds <= 0:
            return self.value
        return (self.marks[-1] - self.marks[-1 - ticks]) / seconds


def raised(peaks: Peaks, value: int, now: float, window_s: float) -> Peaks:
    """`value` noted; `[0][1]` of the result is the highest of the trailing window."""
    kept = [peak for peak in peaks if peak[1] > value and now - peak[0] < window_s]
    return (*kept, (now, value))


def next_tick(due: float, period_s: float, now: float) -> float:
    """The first time of the grid `due`, `due + period_s`, … after `now`."""
    return due + period_s * ((now - due) // period_s + 1)
