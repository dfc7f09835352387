"""The predictor as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
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
from ivcp.serving.kinds import kind_of
from ivcp.serving.language.served_scorer import ServedScorer
from ivcp.serving.language.served_writer import ServedWriter
from ivcp.serving.language.source import LanguageSource
from ivcp.serving.predictor import Predictor
from ivcp.serving.remote_videos import UriError
from ivcp.serving.routes import classify, health, models, open_inference, page, predict, timeline
from ivcp.serving.routes.language import chat, score
from ivcp.serving.routes.language import models as language_models
from ivcp.serving.served_model import ServedModel
from ivcp.serving.service import AnyService, Service
from ivcp.serving.settings import ServerSettings
from ivcp.settings import ModelConfig, RunConfig
from ivcp.stages.protocol import ServedAs
from ivcp.video import VideoError

log = logging.getLogger(__name__)

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_SUMMARIES: Mapping[ServedAs, str] = {
    "classifier": "Classifies the action in a video. Errors are application/problem+json with a stable `code`.",
    "writer": "Answers conversations about videos, as OpenAI's API does.",
    "scorer": "Says how good answers to conversations about videos are.",
}


def create_app(
    model_dir: Path | str,
    *,
    model_name: str | None = None,
    model_version: str | None = None,
    machine: ModelConfig | None = None,
    settings: ServerSettings | None = None,
    run: RunConfig | None = None,
) -> FastAPI:
    """The predictor as an ASGI application; it begins to load the model when it starts.

    What its model does decides which routes there are. `run` says how a model that writes does so where a request says
    nothing, and how a base model sees videos.

    Raises:
        PermissionError, ConnectionError: the model's address cannot be read.
    """
    settings = settings or ServerSettings()
    named = {"name": model_name, "version": model_version, "machine": machine, "infer_dtype": settings.infer_dtype}
    kind = kind_of(model_dir)
    service, routers = _ROUTES[kind](model_dir, settings, named, run)
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
        description=_SUMMARIES[kind],
        lifespan=lifespan,
        docs_url=None,  # they load their scripts from elsewhere
        redoc_url=None,
        telemetry={"auto_configure": True, "metrics": False, "logs": False},
    )
    app.state.service, app.state.metrics = service, metrics
    app.add_middleware(Admission, load=service.load)
    app.add_middleware(Access, keys=settings.key_ring, has_operators=kind == "classifier")
    routers.append(health.routes(service, metrics if settings.probe_port is None else None))
    for router in routers:
        app.include_router(router)
    paths = {route.path for router in routers for route in router.routes if isinstance(route, APIRoute)}
    app.add_middleware(RequestLog, metrics=metrics, paths=paths, speaks_openai=kind != "classifier")
    _answer_errors(app)
    return app


def _classifier(
    model_dir: Path | str, settings: ServerSettings, named: dict[str, Any], run: RunConfig | None
) -> tuple[AnyService, list[APIRouter]]:
    service = Service(Predictor(model_dir, **named), settings, ServedModel)
    of_predictions = (predict, timeline, classify, open_inference, models)
    return service, [*(room.routes(service) for room in of_predictions), page.routes()]


def _writer(
    model_dir: Path | str, settings: ServerSettings, named: dict[str, Any], run: RunConfig | None
) -> tuple[AnyService, list[APIRouter]]:
    service = Service(LanguageSource(model_dir, **named, run=run), settings, ServedWriter)
    return service, [chat.routes(service), language_models.routes(service)]


def _scorer(
    model_dir: Path | str, settings: ServerSettings, named: dict[str, Any], run: RunConfig | None
) -> tuple[AnyService, list[APIRouter]]:
    service = Service(LanguageSource(model_dir, **named, run=run), settings, ServedScorer)
    return service, [score.routes(service), language_models.routes(service)]


_ROUTES = {"classifier": _classifier, "writer": _writer, "scorer": _scorer}


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
    said = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        said = f"{request.method} {request.url.path} is no route of this server: /openapi.json lists those that are"
    problem = ProblemError(_CODES.get(error.status_code, "bad_request"), said, headers=error.headers)
    return _reply(request, problem)


async def _unknown(request: Request, error: Exception) -> Response:
    log.error("request %s failed", getattr(request.state, "request_id", None), exc_info=error)
    return _reply(request, ProblemError("internal", "the server failed: its log has the reason under this request_id"))


def _reply(request: Request, problem: ProblemError) -> Response:
    current_timings().code = problem.code
    return problem.response(request.scope)
