"""What probes and Prometheus ask."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ivcp.serving.http.metrics import PredictorMetrics
from ivcp.serving.service import AnyService


def routes(service: AnyService, metrics: PredictorMetrics | None) -> APIRouter:
    """Of `/healthz` and `/readyz`, and of `/metrics` where there are some to show."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @router.get("/readyz", responses={503: {"description": "Not ready: `status` says why."}})
    async def ready(response: Response) -> dict[str, str]:
        """The model is loaded, and videos can be decoded."""
        state = service.state
        response.status_code = 200 if state == "ready" else 503
        return {"status": state}

    if metrics is not None:
        text = metrics.text

        @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def scrape() -> Response:
            """What Prometheus reads."""
            return Response(text(), media_type=CONTENT_TYPE_LATEST)

    return router
