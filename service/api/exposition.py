"""Metrics as Prometheus reads them: what all workers have counted, rendered by prometheus-client.

Imported when it is first asked for: a server that nobody scrapes does without the library.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.engine.metrics.metrics import BATCH_ROWS, METRICS, ROWS, START_TIME, WORKERS, Metric
from service.engine.metrics.shared_counters import SharedCounters, Totals
from service.exchange import Reply

__all__ = ["exposition"]


def exposition(counters: SharedCounters, accept: str | None) -> Reply:
    """All that has been counted.

    Args:
        counters: of all workers.
        accept: the header; OpenMetrics is given to whoever asks for it.
    """
    encode, media_type = choose_encoder(accept or "")
    registry = CollectorRegistry()
    registry.register(_Collector(counters.read()))
    return Reply(encode(registry), media_type=media_type)


class _Collector(Collector):
    """The totals as families of metrics."""

    def __init__(self, totals: Totals) -> None:
        self._cells = dict(totals.cells)
        self._cells[WORKERS.name,] = [float(len(totals.live))]
        self._cells[START_TIME.name,] = [totals.started]
        for key, cells in totals.cells.items():
            if key[0] == BATCH_ROWS.name:  # rows need no cell of their own: they are what the batches sum to
                self._cells[(ROWS.name, *key[1:])] = [cells[-1]]

    def collect(self) -> Iterator[Family]:
        """Every metric, also where nothing has been counted yet."""
        for metric in METRICS:
            family = _family(metric)
            for key, cells in sorted(self._cells.items()):
                if key[0] == metric.name:
                    _add(family, metric, key[1:], cells)
            yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match metric.kind:
        case "counter":
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "histogram":
            return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _add(
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily,
    metric: Metric,
    labels: tuple[str, ...],
    cells: list[float],
) -> None:
    if isinstance(family, HistogramMetricFamily):
        *counts, total = cells
        bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    else:
        family.add_metric(labels, cells[0])
