"""What Prometheus reads at /metrics: requests, where their time goes, and which models answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

from ivcp.records.answers import ModelIdentity
from ivcp.serving.http.timings import Timings

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histograms' buckets: from a short clip on a GPU to the limit of decoding."""
_CLIPS = (1, 2, 4, 8, 16, 32, 64, 128)
OK = "ok"
"""The code of a request that was answered."""


class PredictorMetrics:
    """The metrics of one predictor, in a registry of their own."""

    def __init__(
        self,
        *,
        is_ready: Callable[[], bool],
        num_waiting: Callable[[], int],
        uploaded_bytes: Callable[[], int],
        models: Callable[[], Iterable[ModelIdentity]],
    ) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "ivcp_requests",
            "Requests by route, status and problem code",
            ["route", "status", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "ivcp_request_seconds",
            "Seconds from a request's first byte to its answer's last",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._parts = Histogram(
            "ivcp_request_part_seconds",
            "Seconds of a request in one part of the work: receive, fetch, decode, queue, model",
            ["part"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "ivcp_batch_clips",
            "How many were computed together, for each clip",
            buckets=_CLIPS,
            registry=registry,
        )
        self.in_progress = Gauge("ivcp_requests_in_progress", "Requests under way", registry=registry)
        _gauge("ivcp_ready", "1 when videos can be classified", is_ready, registry)
        _gauge("ivcp_clips_waiting", "Decoded clips that wait for the model", num_waiting, registry)
        _gauge("ivcp_uploaded_bytes", "Bytes of the requests under way", uploaded_bytes, registry)
        registry.register(_Models(models))

    def count(self, *, route: str, status: int, seconds: float, timings: Timings) -> None:
        """Counts a request that has ended."""
        code = timings.code or (OK if status < 400 else str(status))
        self._requests.labels(route=route, status=str(status), code=code).inc()
        self._seconds.labels(route=route).observe(seconds)
        for part, took in timings.seconds.items():
            self._parts.labels(part=part).observe(took)
        for clips in timings.batch_sizes:
            self._batches.observe(clips)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Models(Collector):
    """`ivcp_model_info`: one line for each model that is loaded now."""

    def __init__(self, models: Callable[[], Iterable[ModelIdentity]]) -> None:
        self._models = models

    def collect(self) -> Iterable[InfoMetricFamily]:
        family = InfoMetricFamily("ivcp_model", "The models that answer", labels=[])
        for model in self._models():
            family.add_metric(
                [],
                {
                    "name": model.name,
                    "version": model.version or "",
                    "trained_steps": str(model.trained_steps),
                    "data_fingerprint": model.data_fingerprint,
                },
            )
        yield family


def _gauge(name: str, text: str, value: Callable[[], float], registry: CollectorRegistry) -> None:
    Gauge(name, text, registry=registry).set_function(value)
