"""What all processes' metrics are made with: a registry, and our own histograms as families."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import HistogramMetricFamily

from loraplex.totals import Histogram


def registry_of_process() -> CollectorRegistry:
    """With what prometheus_client tells of the process and of its garbage collector."""
    registry = CollectorRegistry()
    for each in (ProcessCollector, GCCollector):
        each(registry=registry)
    return registry


def histogram_family(
    name: str,
    text: str,
    labels: Iterable[str],
    values: Iterable[tuple[Iterable[str], Histogram]],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for of, histogram in values:
        family.add_metric(list(of), list(buckets(histogram)), histogram.total)
    return family


def buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """Bound and how many are within it, as Prometheus counts them."""
    total = 0
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        yield bound, total
