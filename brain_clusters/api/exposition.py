"""Scrapes in the words of Prometheus: its text format, or OpenMetrics where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from brain_clusters.domain.exposition import METRICS
from brain_clusters.services.monitoring import Scrape


def exposed(scrape: Scrape, accepts: str) -> tuple[bytes, str]:
    """Return the text of a scrape and its content type. accepts: the request's Accept header."""
    encode, content_type = choose_encoder(accepts)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(scrape))
    return encode(registry), content_type


class _Given(Collector):
    """Collects what was gathered already."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                yield self._histogram(name)
                continue
            kind: Any = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.help, labels=metric.labels)
            for labels, value in self._scrape.values[name].items():
                family.add_metric(labels, value)
            yield family

    def _histogram(self, name: str) -> Metric:
        metric = METRICS[name]
        family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, found in self._scrape.histograms.get(name, {}).items():
            family.add_metric(labels, found.cumulated(), found.sum)
        return family
