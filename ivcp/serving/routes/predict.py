"""The project's own API: one prediction, many, and what there is to know of a model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ivcp.records.answers import (
    Answer,
    BatchItem,
    BatchReply,
    Label,
    LabelList,
    ModelCalibration,
    ModelDescription,
    Problem,
)
from ivcp.serving.http.problems import ProblemError, problem_of
from ivcp.serving.http.requests import BatchRequest, Options, PredictRequest, read_json, received, stored
from ivcp.serving.http.timings import Timings, current_timings
from ivcp.serving.routes.openapi import OF_A_MODEL, OF_PREDICTIONS, body_of
from ivcp.serving.routes.timeline import window_seconds_of
from ivcp.serving.served import VideoSource
from ivcp.serving.service import ClassifierService
from ivcp.serving.side_by_side import each_of

_EXAMPLE = {"uri": "s3://clips/wave_0001.mp4", "top_k": 3}


def routes(service: ClassifierService) -> APIRouter:
    """Of `/v1/predict` and what belongs to it."""
    router = APIRouter(tags=["predictions"])

    @router.post("/v1/predict", responses=OF_PREDICTIONS, openapi_extra=body_of(Options, PredictRequest, _EXAMPLE))
    async def predict(request: Request) -> Answer:
        """Classifies one video: a file in a form, or JSON with a file in base64, pictures, or a URI."""
        async with received(request, service, Options, PredictRequest) as (video, asked):
            return await answer(service, video, asked, current_timings())

    @router.post(
        "/v1/predict:batch",
        responses=OF_PREDICTIONS,
        openapi_extra=body_of(None, BatchRequest, {"requests": [_EXAMPLE]}),
    )
    async def predict_batch(request: Request) -> BatchReply:
        """Classifies many videos; one that cannot be used is an error in its place."""
        batch, most = await read_json(request, BatchRequest), service.settings.max_batch_requests
        if len(batch.requests) > most:
            raise ProblemError(
                "bad_request_fields",
                f"requests: {len(batch.requests)} came, expected at most {most} (max_batch_requests)",
            )
        return BatchReply(answers=tuple(await _answers(service, batch.filled, current_timings())))

    @router.get("/v1/labels", responses=OF_A_MODEL)
    async def labels(model: str | None = None) -> LabelList:
        """The classes, by label."""
        with service.using(model) as served:
            names = served.predictor.model.labels.label_names
            return LabelList(labels=tuple(Label(label=i, label_name=name) for i, name in enumerate(names)))

    @router.get("/v1/model", responses=OF_A_MODEL)
    async def model(model: str | None = None) -> ModelDescription:
        """Which model answers, how it looks at a video, and what may be sent."""
        with service.using(model) as served:
            return _described(service, served.predictor)

    return router


async def answer(service: ClassifierService, video: VideoSource, asked: Options, timings: Timings) -> Answer:
    """The answer for a video that is here."""
    with service.using(asked.model) as model:
        timings.model = model.predictor.name
        return await model.classify(
            video,
            prompt=asked.prompt,
            span=asked.span,
            top_k=asked.top_k,
            with_frame_images=asked.with_frames,
            timings=timings,
        )


async def _answers(
    service: ClassifierService, requests: tuple[PredictRequest, ...], timings: Timings
) -> list[BatchItem]:
    """In their order; as many at a time as keep the decoders busy."""

    async def one(asked: PredictRequest) -> BatchItem:
        try:
            with service.uploads.folder() as folder:
                async with stored(asked, folder, service) as video:
                    return BatchItem(answer=await answer(service, video, asked, timings))
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            return BatchItem(error=Problem.model_validate(problem.body()))

    return await each_of(requests, one, at_once=2 * service.decoders.num_workers)


def _described(service: ClassifierService, predictor: Any) -> ModelDescription:
    model, settings = predictor.model, service.settings
    return ModelDescription(
        **predictor.identity.model_dump(),
        problem_type=model.labels.problem_type,
        heads={head.name: head.label_names for head in model.labels.heads} or None,
        thresholds=model.shown_from if model.labels.kind == "classes" else None,
        num_classes=model.labels.num_classes,
        prompt="\n".join(message.content for message in model.prompt if message.role == "user"),
        video=model.config.video.model_dump(mode="json"),
        calibration=_calibration(model),
        limits={
            "max_upload_mb": settings.max_upload_mb,
            "max_json_mb": settings.max_json_mb,
            "max_batch_requests": settings.max_batch_requests,
            "max_frames": settings.max_frames,
            "max_windows": settings.max_windows,
            "request_timeout_seconds": settings.request_timeout_seconds,
        },
        window_seconds=window_seconds_of(predictor),
        uris=service.reads_uris,
    )


def _calibration(model: Any) -> ModelCalibration | None:
    found = model.calibration
    return found and ModelCalibration(temperature=found.temperature, unsure_below=found.unsure_below)
