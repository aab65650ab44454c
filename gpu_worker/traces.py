"""Spans of jobs that are traced, made when they end: until then nothing is done for them."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from loraplex.messages import Job, Usage
from loraplex.tracing import parent, tracer

_MOST_LOADS = 1000  # that are remembered


@dataclass(frozen=True, slots=True)
class Instants:
    """Of a job's life here, by this machine's monotonic clock; 0: it didn't come to that."""

    taken: float
    admitted: float
    first_token: float
    end: float


class JobTraces:
    def __init__(self, replica: str, model: str) -> None:
        self._replica = replica
        self._model = model
        self._loads: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def adapter_loaded(self, adapter: str, began: float, ended: float) -> None:
        self._loads[adapter] = (began, ended)
        if len(self._loads) > _MOST_LOADS:
            self._loads.popitem(last=False)

    def ended(self, job: Job, usage: Usage, at: Instants, *, resumed: bool) -> None:
        """One span from arrival to end, and in it where the time went."""
        wall = time.time() - time.monotonic()  # seconds: one clock → the other
        arrived = at.taken - usage.queue_s

        def ns(instant: float) -> int:
            return int((wall + instant) * 1e9)

        whole = tracer.start_span(
            f"generate {self._model}",
            context=parent(job.trace),
            kind=SpanKind.CONSUMER,
            start_time=ns(arrived),
            attributes={
                "gen_ai.request.model": self._model,
                "gen_ai.response.id": usage.answer,
                "gen_ai.response.finish_reasons": [usage.status],
                "gen_ai.usage.input_tokens": len(job.prompt),
                "gen_ai.usage.output_tokens": usage.output,
                "gen_ai.usage.cache_read.input_tokens": usage.cached,
                "loraplex.adapter": usage.account.adapter,
                "loraplex.replica": self._replica,
                "loraplex.resumed": resumed,
            },
        )
        if usage.status == "error":
            whole.set_status(Status(StatusCode.ERROR, usage.error))
        within = set_span_in_context(whole)
        for name, begin, end in self._parts(job, arrived, at):
            span = tracer.start_span(name, context=within, start_time=ns(begin))
            span.end(ns(max(begin, end)))
        whole.end(ns(at.end))

    def _parts(self, job: Job, arrived: float, at: Instants) -> list[tuple[str, float, float]]:
        parts = [("queue", arrived, at.taken)]
        admitted = at.admitted or at.first_token or at.end
        parts.append(("admission", at.taken, admitted))
        load = self._loads.get(job.adapter or "")
        if load is not None and load[1] > at.taken and load[0] < admitted:
            parts.append(("adapter load", *load))
        if at.admitted:
            parts.append(("prefill", at.admitted, at.first_token or at.end))
        if at.first_token:
            parts.append(("decode", at.first_token, at.end))
        return parts
