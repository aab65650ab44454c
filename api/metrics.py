"""What an API process tells Prometheus of itself; what happened to answers is the scaler's."""

import time
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import Scope

from api.requests.inflight import Inflight
from loraplex.metrics.families import registry_of_process
from loraplex.totals import SECONDS


class ApiMetrics:
    def __init__(self) -> None:
        self.registry = registry_of_process()
        self.requests = Counter(
            "loraplex_http_requests",
            "HTTP responses that have ended.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "loraplex_http_request_seconds",
            "From a request's head to its response's last byte.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "loraplex_http_first_byte_seconds",
            "From a request's head to the first byte of its response's body.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.under_way = Gauge(
            "loraplex_http_under_way", "HTTP requests under way.", registry=self.registry
        )
        self._answers = Gauge(
            "loraplex_answers_awaited",
            "Answers that clients wait for here.",
            registry=self.registry,
        )

    def watch(self, inflight: Inflight) -> None:
        self._answers.set_function(lambda: inflight.answers)

    def begin(self) -> "Measure":
        self.under_way.inc()
        return Measure(self, time.monotonic())


@dataclass(slots=True)
class Measure:
    """Of one request: told by `gate.Gate` as its response goes by."""

    metrics: ApiMetrics
    began: float
    status: int = 0
    first_at: float = 0.0

    def begins(self, status: int) -> None:
        self.status = status

    def first_byte(self) -> None:
        self.first_at = time.monotonic()

    def ended(self, scope: Scope) -> None:
        metrics, route = self.metrics, _route(scope)
        metrics.under_way.dec()
        metrics.requests.labels(scope["method"], route, self.status or "none").inc()
        metrics.seconds.labels(route).observe(time.monotonic() - self.began)
        if self.first_at:
            metrics.first_byte.labels(route).observe(self.first_at - self.began)


def _route(scope: Scope) -> str:
    """As it was declared, with its routers' prefixes. Paths that no route has are one: others would
    make labels without end."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", "other")
