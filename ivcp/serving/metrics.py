"""What Prometheus reads at /metrics: requests, their durations, and which model answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcp.records.answers import ModelIdentity

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histogram's buckets: from a short clip on a GPU to the limit of decoding."""


class PredictorMetrics:
    """The metrics of one predictor, in a registry of their own."""

    def __init__(self, *, is_ready: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "ivcp_requests", "Answered requests for a classification", ["code"], registry=self._registry
        )
        self.seconds = Histogram(
            "ivcp_request_seconds",
            "Seconds from a request's first byte to its answer's last",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_progress = Gauge("ivcp_requests_in_progress", "Requests under way", registry=self._registry)
        self._model = Info("ivcp_model", "The model that answers", registry=self._registry)
        Gauge("ivcp_ready", "1 when the model is loaded", registry=self._registry).set_function(is_ready)

    def text(self, model: ModelIdentity | None) -> bytes:
        """The metrics in Prometheus' text format; `model` is null while it loads."""
        if model is not None:
            self._model.info(
                {
                    "name": model.name,
                    "version": model.version or "",
                    "trained_steps": str(model.trained_steps),
                    "data_fingerprint": model.data_fingerprint,
                }
            )
        return generate_latest(self._registry)


class MeasuredRequests:
    """Counts and times the requests to one path, with those that are refused before they reach its handler."""

    def __init__(self, app: ASGIApp, *, metrics: PredictorMetrics, path: str) -> None:
        self.app, self._metrics, self._path = app, metrics, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on, and measures the requests to the path."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self.app(scope, receive, send)
            return
        code = 500  # of an exception that nobody answers, and of a client that went away

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        started = time.perf_counter()
        with self._metrics.in_progress.track_inprogress():
            try:
                await self.app(scope, receive, noted)
            finally:
                self._metrics.seconds.observe(time.perf_counter() - started)
                self._metrics.requests.labels(code=str(code)).inc()
