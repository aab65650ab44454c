"""What a replica tells Prometheus. Counted in plain numbers by the step loop, read at a scrape."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_worker.vitals import Machine
from loraplex.messages import Vitals
from loraplex.metrics.families import histogram_family, registry_of_process
from loraplex.totals import SECONDS, TOKENS, Histogram

if TYPE_CHECKING:
    from gpu_worker.engine.engine import Engine

log = logging.getLogger(__name__)

_SEQUENCES = TOKENS[:11]  # 1 to 1,024


def _empty(bounds: tuple[float, ...]) -> Histogram:
    return Histogram(bounds, [0] * (len(bounds) + 1))


class Tally:
    """One owner writes; a scrape in another thread reads a moment later or earlier."""

    def __init__(self) -> None:
        self.generated = 0  # tokens
        self.prompt = 0  # tokens of prompts that came to a first token
        self.cached = 0  # of them, need not be computed
        self.requests = 0
        self.step_s = _empty(SECONDS)
        self.batch = _empty(_SEQUENCES)
        self.inter_token_s = _empty(SECONDS)
        self.adapter_load_s = _empty(SECONDS)
        self.adapter_failures = 0
        self.steps = 0
        self.mixed_steps = 0

    def step(self, seconds: float, sequences: int, adapters: int) -> None:
        self.steps += 1
        self.step_s.add(seconds)
        self.batch.add(sequences)
        self.mixed_steps += adapters > 1

    def adapter_loaded(self, began: float, ended: float, can_run: bool) -> None:
        self.adapter_load_s.add(ended - began)
        self.adapter_failures += not can_run


class ReplicaMetrics(Collector):
    """Of this process, whatever incarnations it has had."""

    def __init__(self, engine: "Engine | None" = None, machine: Machine | None = None) -> None:
        """`engine` None: only for the names."""
        self.tally = Tally()
        self.vitals = Vitals()  # at the latest look
        self._engine = engine
        self._machine = machine

    def look(self) -> None:
        """At the machine; may be called from any thread, by one. What it can't tell stays as it
        was."""
        if self._machine is None:
            return
        try:
            self.vitals = self._machine.read()
        except Exception as failed:  # a driver's; the thread that looks renews the lease
            self._machine = None
            log.warning("how busy the machine is is not told any more: %s", failed)

    def registry(self) -> CollectorRegistry:
        registry = registry_of_process()
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        tally = self.tally
        for name, text, value in (
            ("generated_tokens", "Tokens generated.", tally.generated),
            ("prompt_tokens", "Tokens of prompts that came to a first token.", tally.prompt),
            ("cached_prompt_tokens", "Of them, those found in the prefix cache.", tally.cached),
            ("replica_requests", "Requests that have ended here.", tally.requests),
            ("mixed_steps", "Steps that ran several adapters together.", tally.mixed_steps),
            ("adapter_load_failures", "Adapters that could not be loaded.", tally.adapter_failures),
        ):
            yield CounterMetricFamily(f"loraplex_{name}", text, value)
        for name, text, histogram in (
            ("step_seconds", "How long an engine step takes.", tally.step_s),
            ("batch_size", "Sequences in an engine step.", tally.batch),
            ("inter_token_seconds", "From a token of a request to its next.", tally.inter_token_s),
            ("adapter_load_seconds", "From disk to memory.", tally.adapter_load_s),
        ):
            yield histogram_family(f"loraplex_{name}", text, (), [((), histogram)])
        hit = tally.cached / tally.prompt if tally.prompt else 0.0
        for name, text, value in (
            ("prefix_cache_hit_ratio", "Share of prompt tokens found in the prefix cache.", hit),
            *self._of_engine(),
            *self._of_machine(),
        ):
            yield GaugeMetricFamily(f"loraplex_{name}", text, value)

    def _of_engine(self) -> Iterator[tuple[str, str, float]]:
        engine = self._engine
        used, blocks = engine.kv_blocks if engine else (0, 0)
        yield "kv_blocks_used", "KV blocks that requests hold.", used
        yield "kv_blocks", "KV blocks there are.", blocks
        resident = len(engine.adapters.resident) if engine else 0
        yield "adapters_resident", "Adapters in slots, ready to run.", resident
        load, slots = (engine.load, engine.slots) if engine else (0, 0)
        yield "replica_running", "Requests in the engine.", load
        yield "replica_capacity", "Requests that run at once, at most.", slots

    def _of_machine(self) -> Iterator[tuple[str, str, float]]:
        vitals = self.vitals
        kind = "GPU" if vitals.device == "cuda" else "CPU"
        gpu = vitals.utilization if kind == "GPU" else 0.0
        cpu = vitals.utilization if kind == "CPU" else 0.0
        yield "gpu_utilization", "Of the replica's GPU, 0 to 1; 0 where there is none.", gpu
        yield "cpu_utilization", "Of all cores by this replica; 0 where it has a GPU.", cpu
        yield "memory_used_bytes", "Of the GPU in use, or this process'.", vitals.memory
        yield "memory_total_bytes", "Of the GPU, or of the machine.", vitals.memory_total
