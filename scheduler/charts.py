"""What the leading scaler sees of each deployment in a look, summed up to chart points."""

from collections.abc import Iterable, Mapping, Sequence

from loraplex import charts
from loraplex.broker.interface import SeenLane
from loraplex.chart_points import add_points
from loraplex.entities import PointKind, ReplicaCounts
from loraplex.replica_state import ReplicaState
from loraplex.usage import ANY
from scheduler.facts import ReplicaFacts, World
from scheduler.rows import SqlRows

_LONGEST_S = 10.0  # between looks: what was longer ago is not known
_COUNTED = ("generated", "prompt", "cached", "steps")  # of a report, since its process began

_MISSED_S = 600.0  # a replica that wasn't seen for longer has ended

Counts = dict[str, tuple[float, list[int]]]  # by replica: when it was seen, `_COUNTED`
Points = dict[tuple[str, int], charts.Figures]  # by deployment and begin


class Sampler:
    """Sums of the point that is under way. Pure."""

    def __init__(self, prices: Mapping[str, float]) -> None:
        self._prices = prices
        self._looked_at: float | None = None
        self._point = 0
        self._sums: dict[str, charts.Figures] = {}
        self.counts: Counts | None = None  # as they were last seen; None: nobody knows
        self.complete_counts: Counts | None = None  # where what is complete ends

    def look(self, world: World) -> Points:
        """Returns what is complete by now; mostly nothing."""
        passed = world.now - self._looked_at if self._looked_at is not None else 0.0
        passed = passed if 0 < passed <= _LONGEST_S else 0.0
        now, known = world.now, self.counts or {}
        if self._looked_at is None:  # whom nobody could see was not missed
            known = {name: (now, counted) for name, (_, counted) in known.items()}
        self._looked_at = now
        point, complete = charts.begin(now, charts.FINE_S), {}
        if point != self._point:
            complete = {(name, self._point): sums for name, sums in self._sums.items()}
            self.complete_counts = self.counts
            self._point, self._sums = point, {}
        if passed:
            self._sums.setdefault(charts.LOOKED, {"s": 0.0})["s"] += passed
        counts: Counts = {name: each for name, each in known.items() if now - each[0] < _MISSED_S}
        for facts in world.deployments:
            lanes = {facts.lane, *facts.lanes.values()} & world.lanes.keys()
            seen = [world.lanes[lane] for lane in lanes]
            figures = _load(world.replicas.get(facts.id, ()), seen, self._prices)
            figures = {name: value * passed for name, value in figures.items()}
            figures |= self._counted(seen, counts, now)
            if any(figures.values()):
                charts.add(self._sums.setdefault(facts.id, {}), figures)
        self.counts = counts
        return complete

    def _counted(self, lanes: Iterable[SeenLane], counts: Counts, now: float) -> dict[str, int]:
        """What its replicas have counted since the look before."""
        found = dict.fromkeys(_COUNTED, 0)
        for report in (replica.report for lane in lanes for replica in lane.by_age()):
            after = [getattr(report, name) for name in _COUNTED]
            counts[report.replica] = (now, after)
            if self.counts is None:
                continue
            nothing = [0] * len(after)
            _, before = self.counts.get(report.replica, (now, nothing))
            if after[0] < before[0]:  # another process of the same name
                before = nothing
            for name, a, b in zip(_COUNTED, before, after, strict=True):
                found[name] += b - a
        return found


def _load(
    replicas: Sequence[ReplicaFacts], lanes: Sequence[SeenLane], prices: Mapping[str, float]
) -> dict[str, float]:
    """At one instant."""
    states = [replica.state for replica in replicas]
    serving = [r.seen.report for r in replicas if r.seen and r.alive and r.seen.report.capacity]
    share = 1 / len(serving) if serving else 0.0
    price = sum(prices.get(replica.host, prices.get(ANY, 0.0)) for replica in replicas)
    return {
        "ready": states.count(ReplicaState.READY),
        "starting": states.count(ReplicaState.STARTING),
        "draining": states.count(ReplicaState.DRAINING),
        "waiting": sum(lane.waiting for lane in lanes),
        "running": sum(lane.running for lane in lanes),
        "served_s": float(bool(serving)),
        "gpu_s": float(any(report.vitals.device == "cuda" for report in serving)),
        "utilization": share * sum(report.vitals.utilization for report in serving),
        "kv_used": share * sum(report.kv_used for report in serving),
        "cost": price / 3600,
    }


class Charts:
    """The sampler; its points in the database, and there, too, what the next leader needs."""

    def __init__(self, rows: SqlRows, prices: Mapping[str, float]) -> None:
        self._rows = rows
        self._prices = prices
        self._sampler: Sampler | None = None

    def load(self) -> None:
        """As the leader before left it."""
        self._sampler = None
        sampler = Sampler(self._prices)
        with self._rows.fenced() as session:
            row = session.get(ReplicaCounts, 1)
            sampler.counts = row.counts if row else None
            session.commit()  # from now on no earlier leader adds to it
        self._sampler = sampler

    def look(self, world: World) -> None:
        """Raises Deposed. After a point that was perhaps not stored it goes on from what was."""
        if self._sampler is None:
            self.load()
        sampler, self._sampler = self._sampler, None
        assert sampler is not None
        if complete := sampler.look(world):
            with self._rows.fenced() as session:
                add_points(session, PointKind.LOAD, complete)
                session.merge(ReplicaCounts(counts=sampler.complete_counts or {}))
                session.commit()
        self._sampler = sampler
