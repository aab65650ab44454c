"""OpenTelemetry traces: one from HTTP through Redis to the last byte, exported by OTLP.

Off unless LORAPLEX_OTLP_ENDPOINT is set: then no span is made, and the SDK isn't imported.
Names and attributes: https://opentelemetry.io/docs/specs/semconv/gen-ai/ (texts of prompts and
answers are left out).
"""

import socket
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from loraplex import __version__
from loraplex.settings import Settings

_propagator = TraceContextTextMapPropagator()
tracer = trace.get_tracer("loraplex", __version__)


def configure(process: str, settings: Settings) -> Callable[[], None]:
    """Of this process. Returns what sends the last spans, before it ends."""
    if not settings.otlp_endpoint:
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {
        "service.name": f"loraplex-{process}",
        "service.version": __version__,
        "service.instance.id": socket.gethostname(),
    }
    # What is traced was chosen before a span is made (api/traces.py).
    provider = TracerProvider(resource=Resource.create(about))
    endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def current() -> str:
    """The current span as W3C's `traceparent`; "" where none is sampled."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def parent(traceparent: str) -> Context:
    """For spans below one of another process."""
    return _propagator.extract({"traceparent": traceparent})
