"""What the leading scaler sees of each deployment in a look, summed up to chart points."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session

from loraplex import charts
from loraplex.broker.interface import SeenLane
from loraplex.broker.scaler import ScalerBroker
from loraplex.chart_points import add_points
from loraplex.entities import PointKind
from loraplex.replica_state import ReplicaState
from loraplex.usage import ANY
from scheduler.facts import ReplicaFacts, World

_LONGEST_S = 10.0  # between looks: what was longer ago is not known
_COUNTED = ("generated", "prompt", "cached", "steps")  # of a report, since its process began

Counts = dict[str, list[int]]  # by replica


class Sampler:
    """Sums of the point that is under way. Pure."""

    def __init__(self, prices: Mapping[str, float]) -> None:
        self._prices = prices
        self._looked_at: float | None = None
        self._point = 0
        self._sums: dict[str, charts.Figures] = {}
        self.counts: Counts | None = None  # as they were last seen; None: nobody knows

    def look(self, world: World) -> dict[tuple[str, int], charts.Figures]:
        """Returns what is complete by now, by deployment and begin; mostly nothing."""
        passed = world.now - self._looked_at if self._looked_at is not None else 0.0
        passed = passed if 0 < passed <= _LONGEST_S else 0.0
        self._looked_at = world.now
        point, done = charts.begin(world.now, charts.FINE_S), {}
        if point != self._point:
            done = {(name, self._point): sums for name, sums in self._sums.items()}
            self._point, self._sums = point, {}
        if passed:
            self._sums.setdefault(charts.LOOKED, {"s": 0.0})["s"] += passed
        counts: Counts = {}
        for facts in world.deployments:
            lanes = {facts.lane, *facts.lanes.values()} & world.lanes.keys()
            seen = [world.lanes[lane] for lane in lanes]
            figures = _load(world.replicas.get(facts.id, ()), seen, self._prices)
            figures = {name: value * passed for name, value in figures.items()}
            figures |= self._counted(seen, counts)
            if any(figures.values()):
                charts.add(self._sums.setdefault(facts.id, {}), figures)
        self.counts = counts
        return done

    def _counted(self, lanes: Iterable[SeenLane], counts: Counts) -> dict[str, int]:
        """What its replicas have counted since the look before."""
        found = dict.fromkeys(_COUNTED, 0)
        for report in (replica.report for lane in lanes for replica in lane.by_age()):
            now = [getattr(report, name) for name in _COUNTED]
            counts[report.replica] = now
            if self.counts is None:
                continue
            before = self.counts.get(report.replica, [0] * len(now))
            if now[0] < before[0]:  # another process of the same name
                before = [0] * len(now)
            for name, a, b in zip(_COUNTED, before, now, strict=True):
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
    """The sampler, its points in the database, and what the next leader needs of it in Redis."""

    def __init__(self, database: Engine, broker: ScalerBroker, prices: Mapping[str, float]) -> None:
        self._database = database
        self._broker = broker
        self._prices = prices
        self._sampler = Sampler(prices)

    def load(self) -> None:
        """As the leader before left it."""
        self._sampler = Sampler(self._prices)
        kept = self._broker.charted()
        self._sampler.counts = msgspec.json.decode(kept, type=Counts) if kept else None

    def look(self, world: World) -> None:
        done = self._sampler.look(world)
        if done:
            with Session(self._database) as session:
                add_points(session, PointKind.LOAD, done)
                session.commit()
            self._broker.keep_charted(msgspec.json.encode(self._sampler.counts))
