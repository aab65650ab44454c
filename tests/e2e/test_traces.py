"""One trace from HTTP through the queue and the replica to the last byte; no text in it."""

import json
import secrets
from itertools import pairwise

import pytest

from tests.e2e.running import Platform, until
from tests.fakes.otlp import Collector, Span

pytestmark = pytest.mark.e2e

_SECRET = "the word is xylophone"
_ROUTE = "POST /v1/chat/completions"


def traced(
    platform: Platform, traces: Collector, *, stream: bool, sampled: bool = True
) -> dict[str, Span]:
    """Ask with a `traceparent`; the spans of it by their names."""
    trace = secrets.token_hex(16)
    parent = secrets.token_hex(8)
    flags = "01" if sampled else "00"
    client = platform.openai()
    answer = client.chat.completions.create(
        model="pirate/1",
        stream=stream,
        max_tokens=12,
        messages=[{"role": "user", "content": f"Remember: {_SECRET}."}],
        extra_headers={"traceparent": f"00-{trace}-{parent}-{flags}"},
    )
    if stream:
        list(answer)
    if not sampled:
        return traces.of(trace)
    wanted = (_ROUTE, "enqueue", "generate ", "queue", "admission", "prefill", "decode", "delivery")
    spans = until(
        lambda: traces.of(trace),
        lambda found: all(any(name.startswith(each) for name in found) for each in wanted),
    )
    assert spans[_ROUTE].parent == parent
    return spans


@pytest.mark.parametrize("stream", [True, False])
def test_one_trace_tells_where_the_time_went(
    platform: Platform, traces: Collector, stream: bool
) -> None:
    spans = traced(platform, traces, stream=stream)
    generate = next(span for name, span in spans.items() if name.startswith("generate "))
    assert generate.service == "loraplex-replica" and spans[_ROUTE].service == "loraplex-api"
    assert generate.parent == spans["enqueue"].id
    assert spans["enqueue"].parent == spans["delivery"].parent == spans[_ROUTE].id
    order = [spans[name] for name in ("queue", "admission", "prefill", "decode")]
    for before, after in pairwise(order):
        assert before.end == pytest.approx(after.start, abs=1e-4)
        assert before.parent == generate.id
    slack = 0.05  # Redis' clock has milliseconds
    assert spans[_ROUTE].start - slack <= generate.start and generate.end <= spans[_ROUTE].end
    told = spans[_ROUTE].attributes
    assert told["gen_ai.request.model"] == "pirate/1"
    assert told["gen_ai.usage.output_tokens"] == generate.attributes["gen_ai.usage.output_tokens"]
    assert told["gen_ai.server.time_to_first_token"] > 0
    assert told["http.response.status_code"] == 200
    assert generate.attributes["loraplex.adapter"] == "pirate/1"
    everything = json.dumps([(span.name, span.attributes) for span in spans.values()])
    assert "xylophone" not in everything


def test_an_adapter_s_load_is_seen(platform: Platform, traces: Collector) -> None:
    """The first request of a deployment waits for it."""
    platform.deploy("traced")
    trace = secrets.token_hex(16)
    platform.openai().chat.completions.create(
        model="traced:json/1",
        max_tokens=4,
        messages=[{"role": "user", "content": "hello"}],
        extra_headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"},
    )
    spans = until(lambda: traces.of(trace), lambda found: "decode" in found)
    load, admission = spans["adapter load"], spans["admission"]
    assert load.start < load.end <= admission.end + 0.01
    platform.http().delete("/api/v1/deployments/traced")


def test_who_is_not_sampled_leaves_no_trace(platform: Platform, traces: Collector) -> None:
    traced(platform, traces, stream=True)  # what comes before is exported
    assert not traced(platform, traces, stream=True, sampled=False)
