"""What the predictor's HTTP API says: answers, timelines, problems.

The server writes these records and clients read them. A reader skips fields that it does not know: the server may be
newer.
"""

from __future__ import annotations

from typing import Any

from ivcp.records.record import Record


class HttpRecord(Record, extra="ignore"):
    """A record that travels over HTTP, maybe from a newer version of the project."""


class ClassScore(HttpRecord):
    """One class of an answer."""

    label: int
    label_name: str
    confidence: float
    """Softmax probability, calibrated where the model has a calibration."""


class ModelIdentity(HttpRecord):
    """Which model answered."""

    name: str
    version: str | None
    """Version in the model registry, where the deployment gave one."""
    trained_steps: int
    data_fingerprint: str
    precision: str = "float32"
    """What it computes in, such as `bfloat16`, or `float32 in openvino, 8-bit weights`."""


class Answer(HttpRecord):
    """The predictor's answer for one video."""

    label: int
    label_name: str
    confidence: float
    unsure: bool | None = None
    """Whether the confidence is below the model's threshold; null where the model has none."""
    top: tuple[ClassScore, ...]
    """The best classes, the best first."""
    logits: tuple[float, ...]
    """Of all classes, by label."""
    model: ModelIdentity
    frames: int
    """Frames that the model saw."""
    frame_seconds: tuple[float, ...] = ()
    """When in the video they are."""
    backend: str
    """What decoded the video."""
    seconds: float
    """From the file to the answer."""
    frame_images: tuple[str, ...] | None = None
    """The frames as data: URIs, where they were asked for."""


class TimelineStart(HttpRecord):
    """How a video is cut into windows; the first event of a streamed timeline."""

    duration_seconds: float
    num_windows: int
    window_seconds: float
    stride_seconds: float
    model: ModelIdentity


class TimelineWindow(HttpRecord):
    """The answer for one window of a video."""

    start_seconds: float
    end_seconds: float
    label: int
    label_name: str
    confidence: float
    unsure: bool | None = None
    """As in an answer."""
    top: tuple[ClassScore, ...]


class TimelineSegment(HttpRecord):
    """Neighbouring windows of one class as one; without a class where the model is unsure."""

    start_seconds: float
    end_seconds: float
    label: int | None
    label_name: str | None
    confidence: float


class TimelineSegments(HttpRecord):
    """The last event of a streamed timeline."""

    segments: tuple[TimelineSegment, ...]


class Timeline(HttpRecord):
    """What happens when in one video."""

    duration_seconds: float
    window_seconds: float
    stride_seconds: float
    windows: tuple[TimelineWindow, ...]
    segments: tuple[TimelineSegment, ...]
    model: ModelIdentity


class FieldProblem(HttpRecord):
    """What is wrong with one field of a request."""

    loc: tuple[str | int, ...]
    """Where in the request it stands."""
    msg: str


class Problem(HttpRecord):
    """Why there is no answer: the body of every error, `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    """The status in words."""
    status: int
    detail: str
    """One sentence: what was expected, what came, what to do."""
    code: str
    """A stable name of the reason, e.g. `video_truncated`."""
    request_id: str | None = None
    errors: tuple[FieldProblem, ...] | None = None
    """The fields that are wrong, where the request was read but not understood."""


class Failure(HttpRecord):
    """Why one video has no answer, from a server or from here."""

    code: str
    """As in a problem."""
    detail: str
    status: int | None = None
    """Null where no server answered."""
    request_id: str | None = None


class BatchItem(HttpRecord):
    """What one request of a batch came to: an answer or an error, never both."""

    answer: Answer | None = None
    error: Problem | None = None


class BatchReply(HttpRecord):
    """The answers of a batch, in the order of its requests."""

    answers: tuple[BatchItem, ...]


class Label(HttpRecord):
    """One class of a model."""

    label: int
    label_name: str


class LabelList(HttpRecord):
    """All classes of a model, by label."""

    labels: tuple[Label, ...]


class ModelCalibration(HttpRecord):
    """How confidences are made of logits, and from when on they count."""

    temperature: float
    unsure_below: float | None
    """Answers of less confidence are unsure; null where the model has no threshold."""


class ModelDescription(ModelIdentity):
    """What a client can know of the model that answers, and of what the server takes."""

    num_classes: int
    prompt: str
    video: dict[str, Any]
    """How frames are sampled, by the names of the settings."""
    calibration: ModelCalibration | None
    limits: dict[str, float | None]
    """What a request may be, such as `max_upload_mb`."""
    window_seconds: float | None = None
    """Length of a timeline's windows, where a request does not say."""
    uris: bool
    """Whether videos may be named by a URI."""
