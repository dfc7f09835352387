"""What the predictor's HTTP API says: answers, timelines, problems.

The server writes these records and clients read them. A reader skips fields that it does not know: the server may be
newer.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ivcp.records.problem_types import HEAD_MARK, SINGLE_LABEL, ProblemType
from ivcp.records.record import Record

NO_CLASS = "none of the classes"
"""What is said of a clip that shows none, where it may show several."""


def _is_single_label(value: object) -> bool:
    return value == SINGLE_LABEL


def _is_none(value: object) -> bool:
    return value is None


class HttpRecord(Record, extra="ignore"):
    """A record that travels over HTTP, maybe from a newer version of the project."""


class ClassScore(HttpRecord):
    """One class of an answer."""

    label: int
    label_name: str
    confidence: float
    """Softmax probability, calibrated where the model has a calibration; where a clip may show several classes, the
    probability of each by itself."""


class HeadAnswer(HttpRecord):
    """What one head of a model says."""

    label: int
    label_name: str
    confidence: float
    top: tuple[ClassScore, ...]
    """The best classes, the best first."""


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
    """The predictor's answer for one video.

    Fields of other answers than one class are left out where it is one.
    """

    problem_type: ProblemType = Field(SINGLE_LABEL, exclude_if=_is_single_label)
    """One class, as each head has; several at once; or a number."""
    label: int | None
    """The class; null where the answer is not one class, as are `label_name` and `confidence`."""
    label_name: str | None
    confidence: float | None
    unsure: bool | None = None
    """Whether the confidence is below the model's threshold; null where the model has none."""
    top: tuple[ClassScore, ...]
    """The best classes, the best first; empty with heads, and of a number."""
    labels: tuple[ClassScore, ...] | None = Field(None, exclude_if=_is_none)
    """The classes that are shown, the likeliest first, where there may be several, or none: those whose probability
    reaches their threshold."""
    heads: dict[str, HeadAnswer] | None = Field(None, exclude_if=_is_none)
    """The answer of each head."""
    value: float | None = Field(None, exclude_if=_is_none)
    """The number."""
    logits: tuple[float, ...]
    """Of all classes, by label; of heads those of each, one behind the other; of a number before it was scaled."""
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

    @property
    def words(self) -> str:
        """What it says, for people."""
        return words_of(self.label_name, self.labels, self.heads, self.value)


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
    label: int | None
    """As in an answer, as are all fields below."""
    label_name: str | None
    confidence: float | None
    unsure: bool | None = None
    top: tuple[ClassScore, ...]
    labels: tuple[ClassScore, ...] | None = Field(None, exclude_if=_is_none)
    heads: dict[str, HeadAnswer] | None = Field(None, exclude_if=_is_none)
    value: float | None = Field(None, exclude_if=_is_none)

    @property
    def words(self) -> str:
        """What it says, for people."""
        return words_of(self.label_name, self.labels, self.heads, self.value)


class TimelineSegment(HttpRecord):
    """Neighbouring windows of one class as one; without a class where the model is unsure.

    Where there may be several classes, each has segments of its own, which overlap those of others; each head has some,
    too; a number has none.
    """

    start_seconds: float
    end_seconds: float
    label: int | None
    label_name: str | None
    confidence: float
    head: str | None = Field(None, exclude_if=_is_none)
    """Whose class it is, where there are heads: `label` is counted from its first."""


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

    problem_type: ProblemType = Field(SINGLE_LABEL, exclude_if=_is_single_label)
    """What it says of a video, as in an answer."""
    heads: dict[str, tuple[str, ...]] | None = Field(None, exclude_if=_is_none)
    """The classes of each head, by label, where it has some."""
    thresholds: tuple[float, ...] | None = Field(None, exclude_if=_is_none)
    """The probability from which on each class is shown, by label, where a video may show several."""
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


def words_of(
    label_name: str | None,
    labels: tuple[ClassScore, ...] | None,
    heads: dict[str, HeadAnswer] | None,
    value: float | None,
) -> str:
    """What an answer says, for people: a class, several, that of each head, or a number."""
    if value is not None:
        return f"{value:.4g}"
    if heads is not None:
        return ", ".join(f"{name}{HEAD_MARK}{head.label_name}" for name, head in heads.items())
    if labels is not None:
        return ", ".join(score.label_name for score in labels) or NO_CLASS
    return label_name or ""
