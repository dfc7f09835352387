"""The predictor as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ivcp.data.prompts import PromptError
from ivcp.inference.finite import NonFiniteError
from ivcp.serving.decoding import DecoderError
from ivcp.serving.held_files import ModelChangedError
from ivcp.serving.http.access import Access
from ivcp.serving.http.admission import Admission
from ivcp.serving.http.metrics import PredictorMetrics
from ivcp.serving.http.problems import ProblemError, problem_of
from ivcp.serving.http.request_log import RequestLog
from ivcp.serving.http.timings import current_timings
from ivcp.serving.predictor import Predictor
from ivcp.serving.remote_videos import UriError
from ivcp.serving.routes import classify, health, models, open_inference, page, predict, timeline
from ivcp.serving.service import Service
from ivcp.serving.settings import ServerSettings
from ivcp.settings import ModelConfig
from ivcp.video import VideoError

log = logging.getLogger(__name__)

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_SUMMARY = "Classifies the action in a video. Errors are application/problem+json with a stable `code`."


def create_app(
    model_dir: Path | str,
    *,
    model_name: str | None = None,
    model_version: str | None = None,
    machine: ModelConfig | None = None,
    settings: ServerSettings | None = None,
) -> FastAPI:
    """The predictor as an ASGI application; it begins to load the model when it starts."""
    settings = settings or ServerSettings()
    predictor = Predictor(
        model_dir, name=model_name, version=model_version, machine=machine, infer_dtype=settings.infer_dtype
    )
    service = Service(predictor, settings)
    metrics = PredictorMetrics(
        is_ready=lambda: service.is_ready,
        num_waiting=lambda: service.num_waiting,
        uploaded_bytes=lambda: service.load.bytes,
        models=service.identities,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        app.openapi()  # half a second that the first request would wait for
        yield
        service.stop()

    app = FastAPI(
        title="IVCP predictor",
        version=version("ivcp"),
        description=_SUMMARY,
        lifespan=lifespan,
        docs_url=None,  # they load their scripts from elsewhere
        redoc_url=None,
        telemetry={"auto_configure": True, "metrics": False, "logs": False},
    )
    app.state.service, app.state.metrics = service, metrics
    app.add_middleware(Admission, load=service.load)
    app.add_middleware(Access, keys=settings.key_ring)
    routers = (
        predict.routes(service),
        timeline.routes(service),
        classify.routes(service),
        open_inference.routes(service),
        models.routes(service),
        health.routes(service, metrics if settings.probe_port is None else None),
        page.routes(),
    )
    for router in routers:
        app.include_router(router)
    paths = {route.path for router in routers for route in router.routes if isinstance(route, APIRoute)}
    app.add_middleware(RequestLog, metrics=metrics, paths=paths)
    _answer_errors(app)
    return app


def create_probes(app: FastAPI) -> FastAPI:
    """Only what probes and Prometheus ask of `app`, for a port of its own."""
    probes = FastAPI(title="IVCP predictor: probes", openapi_url=None)
    probes.include_router(health.routes(app.state.service, app.state.metrics))
    return probes


def _answer_errors(app: FastAPI) -> None:
    """Every error is a problem."""
    expected = (ProblemError, VideoError, PromptError, DecoderError, NonFiniteError, UriError, ModelChangedError)
    for kind in (*expected, OSError, ExceptionGroup):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


async def _known(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem is None:
        raise error
    if isinstance(error, NonFiniteError | ModelChangedError | OSError):
        log.error("%s", error)
    return _reply(request, problem)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [{"loc": list(each["loc"]), "msg": str(each["msg"])} for each in error.errors()]
    said = "; ".join(f"{'.'.join(map(str, field['loc']))}: {field['msg']}" for field in fields[:8])
    return _reply(request, ProblemError("bad_request_fields", said, errors=fields))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = ProblemError(_CODES.get(error.status_code, "bad_request"), str(error.detail), headers=error.headers)
    return _reply(request, problem)


async def _unknown(request: Request, error: Exception) -> Response:
    log.error("request %s failed", getattr(request.state, "request_id", None), exc_info=error)
    return _reply(request, ProblemError("internal", "the server failed: its log has the reason under this request_id"))


def _reply(request: Request, problem: ProblemError) -> Response:
    current_timings().code = problem.code
    return problem.response(request.scope)
