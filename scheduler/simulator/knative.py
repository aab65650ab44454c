"""Knative's pod autoscaler, as one of the laws that ours is compared with (see `baselines.py`)."""

from dataclasses import dataclass

from scheduler.scaling import Decision, Observation, Scaling
from scheduler.simulator.answers import answer, existing, shares, within
from scheduler.simulator.windows import Level, Peaks, raised

TICK_S = 2.0  # tick-interval: how often it evaluates


@dataclass(frozen=True, slots=True)
class KnativeState:
    """What an evaluation leaves for the next."""

    since: float  # the stable window has data from here on (seconds)
    panic_since: float  # and the panic window
    recorded_at: float  # when there last was a replica or a request to be measured
    panic_at: float | None  # when the panic threshold was last crossed; None outside of a panic
    peak: int  # highest answer of this panic
    peaks: Peaks  # for the scale-down delay
    zero_at: float | None  # since when zero has been wanted while a replica is left


@dataclass(frozen=True, slots=True)
class KnativeMemory:
    level: Level
    state: KnativeState
    decision: Decision


@dataclass(frozen=True, slots=True)
class Knative:
    """Knative's pod autoscaler (scaling.md section 1; knative/serving
    `pkg/autoscaler/scaling/autoscaler.go`, `config/core/configmaps/autoscaler.yaml`).

    Its activator holds requests at zero and pokes the autoscaler, so the first one acts at once. At
    zero nothing is measured: windows that found nothing for their whole length start afresh.
    """

    delay_s: float = 0.0  # scale-down-delay; the knob of its frontier
    stable_s: float = 60.0
    panic_s: float = 6.0
    panic_threshold: float = 2.0
    max_up: int = 1000  # max-scale-up-rate
    max_down: int = 2  # max-scale-down-rate
    grace_s: float = 30.0  # scale-to-zero-grace-period, taken in full

    def __call__(
        self, cfg: Scaling, seen: Observation, memory: KnativeMemory | None, now: float
    ) -> tuple[Decision, KnativeMemory]:
        x = seen.waiting + seen.running
        if memory is None:
            memory = self._begin(cfg, seen, x, now)
        elif now < memory.level.marked_at + TICK_S and (x == 0 or memory.decision.replicas > 0):
            if x != memory.level.value:
                level = memory.level.look(x, now, TICK_S)
                memory = KnativeMemory(level, memory.state, memory.decision)
            return within(cfg, memory.decision), memory
        level = memory.level.look(x, now, TICK_S)
        want, state = self._evaluate(seen, level, memory, now)
        decision = answer(cfg, want, memory.decision, "KPA")
        return decision, KnativeMemory(level, state, decision)

    def _begin(self, cfg: Scaling, seen: Observation, x: int, now: float) -> KnativeMemory:
        """More than one replica found: in panic, so that none goes before a window is full."""
        panic_at = now if seen.ready > 1 else None
        state = KnativeState(
            now, now, now, panic_at, seen.ready if panic_at is not None else 0, (), None
        )
        level = Level.begin(x, now, round(self.stable_s / TICK_S))
        return KnativeMemory(level, state, existing(cfg, seen))

    def _evaluate(
        self, seen: Observation, level: Level, memory: KnativeMemory, now: float
    ) -> tuple[int, KnativeState]:
        old, ready = memory.state, max(1, seen.ready)
        since, panic_since, recorded_at = self._recorded(seen, level.value, old, now)
        stable = self._want(seen, level, self.stable_s, since)
        panic = self._want(seen, level, self.panic_s, panic_since)
        panic_at = old.panic_at
        if panic >= self.panic_threshold * ready:
            panic_at = now
        elif panic_at is not None and now - panic_at > self.stable_s:
            panic_at = None
        low, high = ready // self.max_down, ready * self.max_up
        want, peak = max(low, min(stable, high)), 0
        if panic_at is not None:
            want = peak = max(old.peak, want, max(low, min(panic, high)))
        peaks = old.peaks
        if self.delay_s:
            peaks = raised(peaks, want, now, self.delay_s)
            want = peaks[0][1]
        if level.value and not memory.decision.replicas:
            want = max(1, want)  # the activator holds a request
        zero_at = None
        if want == 0 and memory.decision.replicas > 0:
            zero_at = now if old.zero_at is None else old.zero_at
            want = int(now - zero_at < self.grace_s)
        return want, KnativeState(since, panic_since, recorded_at, panic_at, peak, peaks, zero_at)

    def _recorded(
        self, seen: Observation, x: int, old: KnativeState, now: float
    ) -> tuple[float, float, float]:
        if not x and not seen.ready:
            return old.since, old.panic_since, old.recorded_at
        empty_s = now - old.recorded_at
        since = now if empty_s > self.stable_s else old.since
        return since, now if empty_s > self.panic_s else old.panic_since, now

    def _want(self, seen: Observation, level: Level, window_s: float, since: float) -> int:
        mean = level.mean(round(window_s / TICK_S), TICK_S, since)
        return shares(mean, seen.slots)
