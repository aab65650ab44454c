"""What a scaler tells Prometheus: of the platform only the leader does, so that sums are right."""

from collections import Counter as Tally
from collections.abc import Iterator
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.entities import Deployment, Totals
from loraplex.metrics.families import histogram_family, registry_of_process
from loraplex.replica_state import ReplicaState
from loraplex.status import Status
from loraplex.totals import SECONDS, Counted, from_json
from scheduler import actions as do
from scheduler.facts import World
from scheduler.reconcile import Decided, Look

_OF = ["deployment", "tenant"]
_HISTOGRAMS = {
    "request_duration_seconds": ("duration_s", "From an answer's request to its end."),
    "queue_duration_seconds": ("queue_s", "Of it, until a replica took it."),
    "inference_seconds": ("inference_s", "Of it, at a replica."),
    "ttft_seconds": ("first_token_s", "From a request to its first token."),
}
_LIVING = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING)


class ScalerMetrics(Collector):
    def __init__(self, database: Engine | None = None) -> None:
        """`database` None: only for the names."""
        self._database = database
        self._world: World | None = None  # while it leads
        self.registry = registry_of_process()
        self._looks = Histogram(
            "loraplex_look_seconds",
            "How long the scaler takes to observe, decide and act.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._decisions = Counter(
            "loraplex_scaler_decisions",
            "Decisions about the number of replicas, by what led to them.",
            [*_OF, "reason"],
            registry=self.registry,
        )
        self._cold_starts = Histogram(
            "loraplex_cold_start_seconds",
            "From asking for a replica to its first token.",
            _OF,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)

    def stand_by(self) -> None:
        self._world = None

    def looked(self, world: World, look: Look, seconds: float) -> None:
        self._world = world
        self._looks.observe(seconds)
        known = {facts.id: [facts.name, facts.tenant] for facts in world.deployments}
        for note in (action for action in look.actions if isinstance(action, do.Note)):
            of = known.get(note.deployment)
            if of is None:
                continue
            if note.kind == "cold_start":
                self._cold_starts.labels(*of).observe(sum(note.inputs.values()))
            elif note.kind == "scaled" and note.deployment in look.decided:
                self._decisions.labels(*of, why(look.decided[note.deployment])).inc()

    def collect(self) -> Iterator[Metric]:
        world = self._world
        leads = GaugeMetricFamily("loraplex_scaler_leads", "1: this scaler is the leader.")
        leads.add_metric([], int(world is not None))
        yield leads
        yield from _of_world(world)
        yield from _of_answers(self._counted() if world is not None else {})

    def _counted(self) -> dict[tuple[str, str], Counted]:
        """By name and tenant of living deployments."""
        if self._database is None:
            return {}
        wanted = (
            select(Deployment.id, Deployment.name, Deployment.tenant_id, Totals.counted)
            .join(Totals, col(Totals.deployment_id) == col(Deployment.id))
            .where(Deployment.status != Status.DELETED.value)
        )
        found: dict[tuple[str, str], list[Any]] = {}
        with Session(self._database) as session:
            for _, name, tenant, counted in session.exec(wanted):
                found.setdefault((name, tenant), []).append(counted)
        return {key: from_json(*each) for key, each in found.items()}


def why(decided: Decided) -> str:
    """In a word."""
    wanted, has = decided.decision.replicas, decided.seen.ready + decided.seen.starting
    if decided.change_waits or decided.allowed < wanted:
        return "fleet_full"
    if wanted > has:
        return "scale_up" if has else "scale_from_zero"
    if wanted < has:
        return "scale_down" if wanted else "scale_to_zero"
    return "replace"


def _of_world(world: World | None) -> Iterator[Metric]:
    replicas = GaugeMetricFamily("loraplex_replicas", "Replicas.", labels=[*_OF, "status"])
    backlog = GaugeMetricFamily("loraplex_backlog", "Answers that wait for a replica.", labels=_OF)
    running = GaugeMetricFamily("loraplex_running", "Answers replicas work on.", labels=_OF)
    oldest = GaugeMetricFamily(
        "loraplex_oldest_wait_seconds", "Since when the first of them waits.", labels=_OF
    )
    statuses = GaugeMetricFamily("loraplex_deployments", "Deployments.", labels=["status"])
    if world is not None:
        living = [facts for facts in world.deployments if facts.status != Status.DELETED]
        for facts in living:  # else a name may come twice
            of = [facts.name, facts.tenant]
            states = Tally(replica.state for replica in world.replicas.get(facts.id, ()))
            for state in _LIVING:
                replicas.add_metric([*of, state.value], states[state])
            lanes = [
                world.lanes[lane]
                for lane in {facts.lane, *facts.lanes.values()}
                if lane in world.lanes
            ]
            backlog.add_metric(of, sum(lane.waiting for lane in lanes))
            running.add_metric(of, sum(lane.running for lane in lanes))
            oldest.add_metric(of, max((lane.oldest_wait_s for lane in lanes), default=0.0))
        found = Tally(facts.status for facts in living)
        for status in Status:
            statuses.add_metric([status.value], found[status])
    yield from (replicas, backlog, running, oldest, statuses)


def _of_answers(counted: dict[tuple[str, str], Counted]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "loraplex_requests", "Answers that have ended, by how.", labels=[*_OF, "status"]
    )
    tokens = CounterMetricFamily(
        "loraplex_tokens", "Tokens of these: prompts, completions.", labels=[*_OF, "kind"]
    )
    for of, each in counted.items():
        for status, count in each.ended.items():
            requests.add_metric([*of, status], count)
        for kind in ("prompt", "completion"):
            tokens.add_metric([*of, kind], each.histograms[f"{kind}_tokens"].total)
    yield from (requests, tokens)
    for name, (key, text) in _HISTOGRAMS.items():
        values = [(of, each.histograms[key]) for of, each in counted.items()]
        yield histogram_family(f"loraplex_{name}", text, _OF, values)
