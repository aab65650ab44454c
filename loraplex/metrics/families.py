"""Our own histograms (`loraplex.totals`) → prometheus_client's families."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import HistogramMetricFamily

from loraplex.totals import Histogram


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
