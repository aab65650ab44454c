"""What an API process tells Prometheus of itself; what happened to answers is the scaler's."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.requests.inflight import Inflight
from loraplex.totals import SECONDS


class ApiMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for each in (ProcessCollector, GCCollector):
            each(registry=self.registry)
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


class Measured:
    """Around the whole application. Plain ASGI, see `app.Gate`."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, began = self._metrics, time.monotonic()
        status, first_at = 0, 0.0

        async def watched(message: Message) -> None:
            nonlocal status, first_at
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not first_at and message.get("body"):
                first_at = time.monotonic()
            await send(message)

        metrics.under_way.inc()
        try:
            await self._app(scope, receive, watched)
        finally:
            metrics.under_way.dec()
            route = _route(scope)
            metrics.requests.labels(scope["method"], route, status or "none").inc()
            metrics.seconds.labels(route).observe(time.monotonic() - began)
            if first_at:
                metrics.first_byte.labels(route).observe(first_at - began)


def _route(scope: Scope) -> str:
    """As it was declared, with its routers' prefixes. Paths that no route has are one: others would
    make labels without end."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", "other")
