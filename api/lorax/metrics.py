"""A deployment's metrics by LoRAX' names, for the dashboards that people have.

From the totals in the database, so that every API process tells the same.
"""

from collections.abc import Iterator

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    GaugeMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlmodel import Session, select

from api.state import State
from loraplex.entities import Deployment, Totals
from loraplex.metrics.families import histogram_family
from loraplex.totals import Counted, from_json

_WELL = ("stop", "length")
_HISTOGRAMS = {
    "lorax_request_duration": ("duration_s", "Seconds from a request's coming to its end."),
    "lorax_request_queue_duration": ("queue_s", "Seconds of it in the queue."),
    "lorax_request_inference_duration": ("inference_s", "Seconds of it at a replica."),
    "lorax_request_mean_time_per_token_duration": ("per_token_s", "Seconds a token, of each."),
    "lorax_request_input_length": ("prompt_tokens", "Tokens of its prompt."),
    "lorax_request_generated_tokens": ("completion_tokens", "Tokens of its answer."),
}


async def exposition(state: State, tenant: str, deployment: Deployment) -> Response:
    """In Prometheus' text format."""
    counted = await run_in_threadpool(_counted, state, tenant, deployment)
    reports = (await state.broker.reports([deployment.lane]))[0]
    load = await state.queues.load(deployment.lane)
    running = sum(report.running for report in reports)
    registry = CollectorRegistry()
    registry.register(_Of(counted, waiting=load.waiting, running=running))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _counted(state: State, tenant: str, deployment: Deployment) -> Counted:
    wanted = select(Totals.counted).where(Totals.deployment_id == deployment.id)
    if deployment.tenant_id != tenant:
        wanted = wanted.where(Totals.tenant_id == tenant)
    with Session(state.database) as session:
        return from_json(*session.exec(wanted))


class _Of(Collector):
    def __init__(self, counted: Counted, waiting: int, running: int) -> None:
        self._counted = counted
        self._gauges = {
            "lorax_queue_size": ("Answers that wait for a replica.", waiting),
            "lorax_batch_current_size": ("Answers that replicas work on.", running),
        }

    def collect(self) -> Iterator[Metric]:
        ended, errors = self._counted.ended, self._counted.errors
        # LoRAX' names: a counter of the client's would be called …_total.
        yield UntypedMetricFamily("lorax_request_count", "Answers.", sum(ended.values()))
        well = sum(ended.get(status, 0) for status in _WELL)
        yield UntypedMetricFamily("lorax_request_success", "Those that came to their end.", well)
        failed = UntypedMetricFamily("lorax_request_failure", "The others, by why.", labels=["err"])
        others = {each: n for each, n in ended.items() if each not in (*_WELL, "error")}
        for why, count in sorted((errors | others).items()):
            failed.add_metric([why], count)
        yield failed
        for name, (key, text) in _HISTOGRAMS.items():
            yield histogram_family(name, text, (), [((), self._counted.histograms[key])])
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value)
