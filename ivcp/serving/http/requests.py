"""What a prediction is asked with: a form with a file, or JSON that holds or names the video."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import anyio.to_thread
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ivcp.data.data_urls import BASE64_URL, DataUrlError, decoded
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.timings import current_timings
from ivcp.serving.served import VideoSource
from ivcp.serving.service import AnyService
from ivcp.serving.uploads import write_upload
from ivcp.video import Span

_FORM = "multipart/form-data"
_WRITTEN_AT_ONCE = 2**19
"""Bytes of an upload that go into a file in less time than it takes to hand them to a thread."""
_MOST_FIELDS = 16
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,12}")
_PICTURES = "data:video/jpeg;base64,"
"""vLLM's own form of a video that is a list of pictures, which commas divide."""
_SUFFIXES = {"video/mp4": ".mp4", "video/webm": ".webm", "video/quicktime": ".mov", "image/gif": ".gif"}
_MOST_PROMPT = 100_000
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 1e9
"""Of windows and moments; beyond these sums overflow."""
_MOST_ERRORS = 50
"""That are listed: a small request can have a hundred thousand."""
_MOST_VALUES = 100_000
"""Lists, objects and what commas divide in them, in a JSON request: each that does not fit takes a kilobyte."""
BodyT = TypeVar("BodyT", bound=BaseModel)
ResultT = TypeVar("ResultT")


def _no_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a null character")
    return text


Text = Annotated[str, AfterValidator(_no_null)]


class Options(BaseModel):
    """What is asked about a video."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    prompt: Text | None = Field(None, max_length=_MOST_PROMPT)
    """Another question; `<video>` and the action token are added where it lacks them. By default the model's own."""
    top_k: int = Field(5, ge=1, le=100_000)
    """Classes in `top`."""
    start_seconds: float | None = Field(None, ge=0, le=_MOST_SECONDS, allow_inf_nan=False)
    """Where the clip begins in the video; by default at its start."""
    end_seconds: float | None = Field(None, gt=0, le=_MOST_SECONDS, allow_inf_nan=False)
    """Where it ends; by default at the video's end."""
    with_frames: bool = False
    """Whether the answer holds the frames that the model saw, as JPEG pictures."""
    model: Text | None = None
    """Name of one of several models; by default the server's first."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise ValueError("end_seconds must be greater than start_seconds")
        return self

    @property
    def span(self) -> Span:
        """The clip in its video."""
        return Span(self.start_seconds, self.end_seconds)


class VideoFields(BaseModel):
    """The video of a JSON request."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    video: str | None = None
    """A video file in base64, or as a `data:` URI."""
    frames: tuple[str, ...] | None = None
    """Pictures in order (JPEG, PNG, WebP), each in base64 or as a `data:` URI."""
    fps: float | None = Field(None, gt=0, le=1000, allow_inf_nan=False)
    """Pictures per second in `frames`; by default the model's `video_fps`."""
    uri: Text | None = Field(None, max_length=8192)
    """`https://` or `s3://`, where this server may read."""

    @model_validator(mode="after")
    def _one_video(self) -> Self:
        given = [name for name in ("video", "frames", "uri") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of video, frames and uri, {' and '.join(given) or 'none of them'} came")
        if self.fps is not None and self.frames is None:
            raise ValueError("fps is for frames: a video file has its own times")
        return self


class PredictRequest(VideoFields, Options):
    """One prediction as JSON."""


class WindowOptions(BaseModel):
    """How a timeline cuts its video."""

    window_seconds: float | None = Field(None, ge=_LEAST_SECONDS, le=_MOST_SECONDS, allow_inf_nan=False)
    """Length of a window; by default that of the clips that the model was trained with, or 2."""
    stride_seconds: float | None = Field(None, ge=_LEAST_SECONDS, le=_MOST_SECONDS, allow_inf_nan=False)
    """From one window's start to the next; by default half a window."""


class TimelineOptions(WindowOptions, Options):
    """What is asked about a long video."""


class TimelineRequest(VideoFields, TimelineOptions):
    """One timeline as JSON."""


class BatchRequest(BaseModel):
    """Many predictions at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    requests: tuple[PredictRequest, ...] = Field(min_length=1)
    """Each as for `/v1/predict`."""
    prompt: Text | None = Field(None, max_length=_MOST_PROMPT)
    """Of the requests that have none of their own; so are `top_k` and `model`."""
    top_k: int | None = Field(None, ge=1, le=100_000)
    model: Text | None = None

    @property
    def filled(self) -> tuple[PredictRequest, ...]:
        """The requests, with what is said for all of them where they say nothing themselves."""
        given = self.model_dump(include={"prompt", "top_k", "model"}, exclude_none=True)
        return tuple(
            one.model_copy(update={name: value for name, value in given.items() if name not in one.model_fields_set})
            for one in self.requests
        )


@asynccontextmanager
async def received(
    request: Request, service: AnyService, options: type[BodyT], body: type[BodyT]
) -> AsyncIterator[tuple[VideoSource, BodyT]]:
    """Reads a request of either kind; inside, its video lies in files. `options` are those of a form.

    Raises:
        ProblemError: it cannot be read, does not fit, or its video may not or cannot be fetched.
    """
    kind = _kind_of(request)
    with service.uploads.folder() as folder:
        if kind == _FORM:
            with current_timings().of("receive"):
                video, fields = await _read_form(request, folder, options)
            yield video, fields
        elif kind.endswith("json") or not kind:
            asked = await read_json(request, body)
            assert isinstance(asked, VideoFields)
            async with stored(asked, folder, service) as video:
                yield video, asked
        else:
            raise ProblemError(
                "unsupported_media_type",
                f"expected {_FORM} with a file in the field `video`, or application/json; {kind[:100]} came",
            )


def _kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, kind: type[BodyT]) -> BodyT:
    """The body of a JSON request.

    Raises:
        ProblemError: it is no JSON, or does not fit.
    """
    body = await read_body(request)
    return await in_thread(lambda: parsed(kind, body))


async def read_body(request: Request) -> bytes:
    """The body of a request that is no form, which is held in memory.

    Raises:
        ProblemError: it is a form, which may be larger.
    """
    if _kind_of(request) == _FORM:
        raise ProblemError("unsupported_media_type", f"expected application/json; {_FORM} came")
    with current_timings().of("receive"):
        return await request.body()


def parsed(kind: type[BodyT], body: bytes | Any) -> BodyT:
    """A model of JSON text, or of values that were parsed.

    Raises:
        ProblemError: it does not fit.
    """
    if isinstance(body, bytes) and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ProblemError("bad_request", f"the JSON has more than {_MOST_VALUES} values: send less at a time")
    try:
        return kind.model_validate_json(body) if isinstance(body, bytes) else kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from error
    except RecursionError as error:
        raise ProblemError("bad_request", "the JSON is nested too deeply") from error


def invalid(error: ValidationError) -> ProblemError:
    """What a body that does not fit is answered; values are not repeated."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found and found[0]["type"] == "json_invalid":
        return ProblemError("bad_request", f"the body is no JSON: {found[0]['msg']}")
    fields = [
        {"loc": list(each["loc"]), "msg": each["msg"].removeprefix("Value error, ")} for each in found[:_MOST_ERRORS]
    ]
    said = "; ".join(": ".join(filter(None, (".".join(map(str, f["loc"])), str(f["msg"])))) for f in fields[:8])
    return ProblemError("bad_request_fields", said, errors=fields)


def video_of_url(url: str) -> dict[str, str | list[str]]:
    """The fields of a request whose video is at a URL, as chats have it: a `data:` URI, or where it may be fetched."""
    if url.startswith(_PICTURES):
        return {"frames": url.removeprefix(_PICTURES).split(",")}
    return {"video": url} if url[:5].lower() == "data:" else {"uri": url}


@asynccontextmanager
async def stored(asked: VideoFields, folder: Path, service: AnyService) -> AsyncIterator[VideoSource]:
    """The video of a JSON request as files in `folder`; what is fetched counts among the uploads.

    Raises:
        ProblemError: it is no base64, has too many pictures, or may not or cannot be fetched.
    """
    if asked.video is not None:
        text = asked.video
        yield VideoSource(await in_thread(lambda: _decoded(text, folder / "video", "video")), "the video")
    elif asked.frames is not None:
        most, frames = service.settings.max_frames, asked.frames
        if len(frames) > most:
            raise ProblemError(
                "bad_request_fields", f"frames: {len(frames)} came, expected at most {most} (max_frames)"
            )
        yield VideoSource(await in_thread(lambda: _pictures(frames, folder)), "the frames", images_fps=asked.fps)
    elif asked.uri is not None:
        with service.load.counting() as count:
            try:
                with current_timings().of("fetch"):
                    path = await service.fetch(asked.uri, folder, count=count)
                yield VideoSource(path, "the video")
            finally:  # while its bytes still count: the folder goes later
                (folder / "video").unlink(missing_ok=True)


async def _read_form(request: Request, folder: Path, options: type[BodyT]) -> tuple[VideoSource, BodyT]:
    try:
        async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=2**20) as form:
            video, fields = _parts(form)
            asked = parsed(options, fields)
            suffix = Path(video.filename or "").suffix
            path = folder / f"video{suffix if _SUFFIX.fullmatch(suffix) else ''}"
            size = video.size or 0
            if size <= _WRITTEN_AT_ONCE:
                write_upload(video.file, size, path)  # a thread would take longer
            else:
                await in_thread(lambda: write_upload(video.file, size, path))
    except HTTPException as error:
        raise ProblemError("bad_request", f"the form cannot be read: {error.detail}") from error
    return VideoSource(path, "the upload"), asked


def _parts(form: FormData) -> tuple[UploadFile, dict[str, str]]:
    video: UploadFile | None = None
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "video":
                raise ProblemError(
                    "bad_request_fields", f"the file must be in the field `video`, not in `{name[:100]}`"
                )
            video = value
        else:
            fields[name] = value
    if video is None:
        raise ProblemError("bad_request_fields", "the field `video` with the video file is missing")
    return video, fields


def _decoded(text: str, path: Path, field: str) -> Path:
    """Writes what base64 text, or a data: URI, holds."""
    described = BASE64_URL.match(text)
    if described is None and text[:5].lower() == "data:":
        raise ProblemError("bad_request_fields", f"{field}: a data: URI must be data:<type>;base64,<data>")
    if described:
        path = path.with_suffix(_SUFFIXES.get(described["type"] or "", ""))
    try:
        content = decoded(text[described.end() :] if described else text)
    except DataUrlError as error:
        raise ProblemError("bad_request_fields", f"{field}: {error}") from error
    write_upload(io.BytesIO(content), len(content), path)
    return path


def _pictures(frames: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    return tuple(
        _decoded(text, folder / f"{number:06d}", f"frames.{number}").absolute() for number, text in enumerate(frames)
    )


async def in_thread(work: Callable[[], ResultT]) -> ResultT:
    """Runs what takes a while without holding up other requests."""
    return await anyio.to_thread.run_sync(work)
