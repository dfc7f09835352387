"""The Open Inference Protocol, version 2, which KServe, Triton and their clients speak.

Read from github.com/kserve/open-inference-protocol (HTTP/REST) and Triton's extension for binary tensors, which its
Python client uses by default.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ivcp.records.answers import Answer
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.requests import Options, PredictRequest, Text, in_thread, parsed, read_body, stored
from ivcp.serving.http.timings import Timings, current_timings
from ivcp.serving.routes.openapi import OF_A_MODEL, OF_PREDICTIONS, ON_EVERY_ROUTE, body_of
from ivcp.serving.routes.predict import answer
from ivcp.serving.served import VideoSource
from ivcp.serving.served_model import ServedModel
from ivcp.serving.service import ClassifierService
from ivcp.serving.side_by_side import each_of
from ivcp.serving.uploads import write_upload

JSON_LENGTH_HEADER = "inference-header-content-length"
_INPUT = "video"
_OF_CLIP = ("prompt", "start_seconds", "end_seconds")
"""What `parameters` may say of all videos; others are the protocol's, or mean nothing here."""
_LENGTH = struct.Struct("<I")
_LENGTH_OF_HEAD = re.compile(r"[0-9]{1,18}")
_EXAMPLE = {"inputs": [{"name": _INPUT, "shape": [1], "datatype": "BYTES", "data": ["<base64 of a video file>"]}]}


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class InputTensor(_Lenient):
    """Videos."""

    name: Text
    shape: tuple[int, ...]
    datatype: Text
    parameters: dict[str, Any] | None = None
    data: tuple[Any, ...] | None = None
    """Each a video file in base64, a `data:` URI, or a URI; null where the bytes come behind the JSON."""


class OutputTensor(_Lenient):
    """An output that is wanted."""

    name: Text
    parameters: dict[str, Any] | None = None


class InferRequest(_Lenient):
    """One inference."""

    id: Text | None = None
    parameters: dict[str, Any] | None = None
    inputs: tuple[InputTensor, ...] = Field(min_length=1)
    outputs: tuple[OutputTensor, ...] | None = None


class OutputKind(BaseModel):
    """An output as the metadata says it."""

    name: str
    datatype: Literal["FP32", "FP64", "INT64", "BYTES"]
    shape: list[int]


Outputs = dict[str, tuple[OutputKind, Callable[[list[Answer]], NDArray[Any]]]]


def routes(service: ClassifierService) -> APIRouter:
    """Of `/v2`."""
    router = APIRouter(tags=["Open Inference Protocol"])

    @router.get("/v2", responses=ON_EVERY_ROUTE)
    async def server() -> dict[str, Any]:
        """What this server is."""
        return {"name": "ivcp", "version": version_of("ivcp"), "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @router.get("/v2/health/ready")
    async def ready(response: Response) -> dict[str, bool]:
        """Videos can be classified."""
        response.status_code = 200 if service.is_ready else 503
        return {"ready": service.is_ready}

    @router.get("/v2/models", responses=ON_EVERY_ROUTE)
    async def models() -> dict[str, list[str]]:
        """The names of the models, as KServe's own servers list them."""
        return {"models": [model.predictor.name for model in service.models]}

    @router.get("/v2/models/{name}", responses=OF_A_MODEL)
    @router.get("/v2/models/{name}/versions/{version}", responses=OF_A_MODEL, include_in_schema=False)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        with service.using(name) as model:
            _check_version(model, version)
            return {
                "name": name,
                "versions": [model.predictor.version or "1"],
                "platform": "ivcp",
                "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
                "outputs": [kind.model_dump() for kind, _ in _outputs(model).values()],
            }

    @router.get("/v2/models/{name}/ready", responses=OF_A_MODEL)
    @router.get("/v2/models/{name}/versions/{version}/ready", responses=OF_A_MODEL, include_in_schema=False)
    async def model_ready(name: str, response: Response, version: str | None = None) -> dict[str, Any]:
        """Whether a model answers."""
        with service.using(name) as model:
            _check_version(model, version)
            response.status_code = 200 if service.is_ready else 503
            return {"name": name, "ready": service.is_ready}

    extra = body_of(None, InferRequest, _EXAMPLE)

    @router.post("/v2/models/{name}/infer", responses=OF_PREDICTIONS, openapi_extra=extra)
    @router.post("/v2/models/{name}/versions/{version}/infer", responses=OF_PREDICTIONS, include_in_schema=False)
    async def infer(name: str, request: Request, version: str | None = None) -> Response:
        """Classifies the videos of the input `video`."""
        header = request.headers.get(JSON_LENGTH_HEADER)
        body = await read_body(request)
        with service.using(name) as model:
            _check_version(model, version)
            asked, behind = _split(body, header)
            outputs = _wanted(asked, _outputs(model))
            videos = _videos(asked, behind, most=service.settings.max_batch_requests)
            answers = await _answers(service, name, videos, asked.parameters or {}, current_timings())
            return await in_thread(lambda: _reply(asked, model, outputs, answers))

    return router


def _outputs(model: ServedModel) -> Outputs:
    loaded = model.predictor.model
    labels, classes = loaded.labels, loaded.labels.num_classes

    def probabilities(answers: list[Answer]) -> NDArray[Any]:
        return np.array([model.predictor.probabilities(answer.logits) for answer in answers], dtype=np.float32)

    logits: Outputs = {
        "logits": (
            OutputKind(name="logits", datatype="FP32", shape=[-1, classes]),
            lambda answers: np.array([answer.logits for answer in answers], dtype=np.float32),
        )
    }
    if labels.kind == "value":
        value = OutputKind(name="value", datatype="FP64", shape=[-1])
        return logits | {"value": (value, lambda answers: np.array([answer.value for answer in answers]))}
    shared = logits | {
        "probabilities": (OutputKind(name="probabilities", datatype="FP32", shape=[-1, classes]), probabilities)
    }
    if labels.kind == "classes":
        return shared | {"labels": (OutputKind(name="labels", datatype="INT64", shape=[-1, classes]), _shown(classes))}
    if labels.kind == "heads":
        return shared | _of_heads([head.name for head in labels.heads])
    return shared | {
        "label": (
            OutputKind(name="label", datatype="INT64", shape=[-1]),
            lambda answers: np.array([answer.label for answer in answers], dtype=np.int64),
        ),
        "label_name": (
            OutputKind(name="label_name", datatype="BYTES", shape=[-1]),
            lambda answers: np.array([answer.label_name for answer in answers], dtype=np.object_),
        ),
    }


def _shown(classes: int) -> Callable[[list[Answer]], NDArray[Any]]:
    """1 for each class that is shown, else 0, (videos, classes)."""

    def shown(answers: list[Answer]) -> NDArray[Any]:
        found = np.zeros((len(answers), classes), dtype=np.int64)
        for row, said in enumerate(answers):
            found[row, [score.label for score in said.labels or ()]] = 1
        return found

    return shown


def _of_heads(names: list[str]) -> Outputs:
    """The class of each head, (videos, heads), in their order."""

    def of(answers: list[Answer], field: str, dtype: Any) -> NDArray[Any]:
        heads = [[said.heads[name] for name in names] if said.heads else [] for said in answers]
        return np.array([[getattr(head, field) for head in row] for row in heads], dtype=dtype)

    shape = [-1, len(names)]
    return {
        "label": (OutputKind(name="label", datatype="INT64", shape=shape), lambda found: of(found, "label", np.int64)),
        "label_name": (
            OutputKind(name="label_name", datatype="BYTES", shape=shape),
            lambda found: of(found, "label_name", np.object_),
        ),
    }


def _check_version(model: ServedModel, version: str | None) -> None:
    if version is not None and version != (model.predictor.version or "1"):
        raise ProblemError("model_not_found", f"the model is loaded in version {model.predictor.version or '1'}")


def _split(body: bytes, header: str | None) -> tuple[InferRequest, bytes]:
    """The JSON, and the binary tensors behind it."""
    if header is None:
        return parsed(InferRequest, body), b""
    if not _LENGTH_OF_HEAD.fullmatch(header) or int(header) > len(body):
        raise ProblemError("bad_request", f"Inference-Header-Content-Length must be a number up to {len(body)}")
    return parsed(InferRequest, body[: int(header)]), body[int(header) :]


def _wanted(asked: InferRequest, outputs: Outputs) -> Outputs:
    names = [output.name for output in asked.outputs or ()] or list(outputs)
    if unknown := [name for name in names if name not in outputs]:
        raise ProblemError("bad_request_fields", f"outputs: {unknown[0][:100]!r} is none of {', '.join(outputs)}")
    return {name: outputs[name] for name in names}


def _videos(asked: InferRequest, behind: bytes, *, most: int) -> list[str | bytes]:
    tensor = next((one for one in asked.inputs if one.name == _INPUT), None)
    if tensor is None or len(asked.inputs) > 1 or tensor.datatype != "BYTES":
        raise ProblemError("bad_request_fields", f"inputs: expected one input named {_INPUT} of the datatype BYTES")
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or size != len(behind):
            raise ProblemError("bad_request_fields", f"binary_data_size: {len(behind)} bytes came behind the JSON")
        videos: list[str | bytes] = list(_elements(behind, most=most))
    else:
        videos = list(tensor.data or ())
        if not all(isinstance(video, str) for video in videos):
            raise ProblemError("bad_request_fields", "data: expected text, a video in base64 or a URI in each element")
    if len(videos) > most:
        raise ProblemError("bad_request_fields", f"shape: more than {most} videos came (max_batch_requests)")
    if len(videos) != int(np.prod(tensor.shape)) or not videos or min(tensor.shape, default=0) < 1:
        raise ProblemError(
            "bad_request_fields", f"shape: {list(tensor.shape)[:8]} does not fit the {len(videos)} elements that came"
        )
    return videos


def _elements(content: bytes, *, most: int) -> list[bytes]:
    """BYTES tensors: each element behind its length, four bytes, the lowest first; not many more than `most`."""
    elements: list[bytes] = []
    at = 0
    while at < len(content) and len(elements) <= most:
        if at + _LENGTH.size > len(content):
            break
        (size,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if at + size > len(content):
            raise ProblemError("bad_request_fields", "an element of the binary data is longer than the data")
        elements.append(content[at : at + size])
        at += size
    return elements


async def _answers(
    service: ClassifierService, name: str, videos: list[str | bytes], parameters: dict[str, Any], timings: Timings
) -> list[Answer]:
    of_clip = {name: parameters[name] for name in _OF_CLIP if name in parameters}

    async def one(video: str | bytes) -> Answer:
        with service.uploads.folder() as folder:
            options = {"model": name, "top_k": 1, **of_clip}
            if isinstance(video, bytes):
                path = folder / "video"
                await in_thread(lambda: write_upload(io.BytesIO(video), len(video), path))
                return await answer(service, VideoSource(path, "the video"), parsed(Options, options), timings)
            field = "uri" if video.startswith(("http:", "https:", "s3:")) else "video"
            asked = parsed(PredictRequest, options | {field: video})
            async with stored(asked, folder, service) as stored_video:
                return await answer(service, stored_video, asked, timings)

    # The first video that cannot be used is the answer to all: the protocol has no partial ones.
    return await each_of(videos, one, at_once=2 * service.decoders.num_workers)


def _reply(asked: InferRequest, model: ServedModel, outputs: Outputs, answers: list[Answer]) -> Response:
    as_binary = {output.name: (output.parameters or {}).get("binary_data") for output in asked.outputs or ()}
    by_default = (asked.parameters or {}).get("binary_data_output") is True
    described, binary = [], []
    for name, (kind, values_of) in outputs.items():
        values = values_of(answers)
        tensor: dict[str, Any] = {"name": name, "datatype": kind.datatype, "shape": list(values.shape)}
        if as_binary.get(name, by_default) is True:
            binary.append(_as_bytes(values))
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            tensor["data"] = values.reshape(-1).tolist()
        described.append(tensor)
    reply = {
        "model_name": model.predictor.name,
        "model_version": model.predictor.version or "1",
        "outputs": described,
    } | ({"id": asked.id} if asked.id is not None else {})
    text = json.dumps(reply).encode()
    if not binary:
        return Response(text, media_type="application/json")
    return Response(
        text + b"".join(binary),
        media_type="application/octet-stream",
        headers={JSON_LENGTH_HEADER: str(len(text))},
    )


def _as_bytes(values: NDArray[Any]) -> bytes:
    if values.dtype != np.object_:
        return values.tobytes()
    texts = [str(value).encode() for value in values.reshape(-1)]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
