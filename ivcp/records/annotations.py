"""Validated annotations: splits, classes, conversations, clips, and the rows that cannot be used."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ivcp.records.problem_types import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Head,
    ProblemType,
    TargetKind,
    TargetScale,
    head_names,
)
from ivcp.records.record import Record

Split = Literal["train", "val", "test"]


MediumKind = Literal["video", "image", "audio"]

RowKind = Literal["labels", "conversations", "pairs", "tags", "texts"]
"""What a stage asks of a row beside its media: a class; a conversation with an answer; one with a chosen and a rejected
answer; one whose answer is tagged as desirable or not; or a text without turns."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def _is_single_label(value: object) -> bool:
    return value == SINGLE_LABEL


def _is_empty(value: object) -> bool:
    """Of fields that are not written where a row has none."""
    return value is None or value == ()


class Labels(Record):
    """What a model tells of a clip: mostly one of several classes, where a label is an index into `label_names`.

    The fields that say otherwise are not written where it is one class.
    """

    problem_type: ProblemType = Field(SINGLE_LABEL, exclude_if=_is_single_label)
    """One class, as each head has; any number of them; or a number."""
    label_names: tuple[str, ...]
    """Class names; the position is the label. With heads, those of all heads, one behind the other, as `<head>:
    <class>`; of a number the name of its column."""
    reversed_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of classes that differ only in the order of time."""
    heads: tuple[Head, ...] = Field((), exclude_if=_is_empty)
    """Each with a class of its own."""
    scale: TargetScale | None = Field(None, exclude_if=_is_empty)
    """Of a number: what the model's output is multiplied with; known once a training has begun."""

    @classmethod
    def of_heads(cls, heads: tuple[Head, ...]) -> Self:
        """Those of heads."""
        return cls(label_names=head_names(heads), heads=heads)

    @classmethod
    def of_value(cls, name: str, scale: TargetScale | None = None) -> Self:
        """That of a number."""
        return cls(problem_type=REGRESSION, label_names=(name,), scale=scale)

    @field_validator("label_names")
    @classmethod
    def _enough(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        fewest = 1 if info.data.get("problem_type") == REGRESSION else 2
        if len(value) < fewest:
            raise PydanticCustomError(
                "too_short", f"Tuple should have at least {fewest} items after validation, not {len(value)}"
            )
        return value

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads and (self.problem_type != SINGLE_LABEL or self.label_names != head_names(self.heads)):
            raise ValueError("heads: expected label_names of their classes, and one class of each")
        return self

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names holds a name twice")
        unknown = {name for pair in self.reversed_pairs for name in pair} - set(self.label_names)
        if unknown:
            raise ValueError(f"reversed_pairs names unknown classes: {', '.join(sorted(unknown))}")
        return self

    @property
    def kind(self) -> TargetKind:
        """What is told of a clip."""
        if self.problem_type == REGRESSION:
            return "value"
        if self.heads:
            return "heads"
        return "classes" if self.problem_type == MULTI_LABEL else "class"

    @property
    def num_classes(self) -> int:
        """Number of classes, which is that of the model's outputs: of all heads together; 1 for a number."""
        return len(self.label_names)

    @property
    def outputs_of_heads(self) -> tuple[slice, ...]:
        """Where the outputs of each head are among the model's."""
        starts = [sum(head.num_classes for head in self.heads[:number]) for number in range(len(self.heads))]
        return tuple(slice(start, start + head.num_classes) for start, head in zip(starts, self.heads, strict=True))

    @property
    def partner(self) -> dict[int, int]:
        """Each label of a reversed pair → the other one."""
        index = {name: label for label, name in enumerate(self.label_names)}
        both = (*self.reversed_pairs, *((b, a) for a, b in self.reversed_pairs))
        return {index[a]: index[b] for a, b in both}


class Message(Record):
    """One turn of a conversation; `content` holds `<video>`, `<image>` and `<audio>` tags and the action token as text.

    `tools` stands in front of a conversation: the functions that its assistant may call, as a JSON list. A `function`
    turn is the assistant's as well, and holds its calls as a JSON list of names and arguments; an `observation` is
    what they came to.
    """

    role: Literal["tools", "system", "user", "assistant", "function", "observation"]
    content: str

    @property
    def is_answer(self) -> bool:
        """Whether the model says it."""
        return self.role in ("assistant", "function")


def _is_video(kind: object) -> bool:
    return kind == "video"


class ClipMedium(Record):
    """One of the videos, images and sounds of a clip."""

    video: str | tuple[str, ...]
    """Path or s3:// URI, or those of a video's frame images in order."""
    kind: MediumKind = Field("video", exclude_if=_is_video)
    num_frames: int
    """Frames of the whole video, counted by decoding; 1 of an image; samples of a sound, at `audio_sampling_rate`."""
    content_hash: str | None = None
    """As `Clip.content_hash`."""
    video_sha256: str | None = None
    """As `Clip.video_sha256`."""


class Clip(Record):
    """One validated sample: a row of `annotations.jsonl`.

    Fields that few rows have are left out of the file where they are empty.
    """

    clip_id: str
    """Unique and stable: `<data set>:<row>`."""
    dataset: str
    row: int
    """Row in the data set's file, from 0."""
    video: str | tuple[str, ...] | None
    """Path or s3:// URI of the first video, image or sound, or of a video's frame images in order; null where the row
    has none."""
    kind: MediumKind = Field("video", exclude_if=_is_video)
    """What `video` is."""
    more_videos: tuple[ClipMedium, ...] = Field((), exclude_if=_is_empty)
    """The videos, images and sounds behind the first one, in the order of their tags."""
    messages: tuple[Message, ...]
    """Of a pair of answers, the chosen one is the last turn; a text without turns is one of the assistant."""
    rejected: str | None = Field(None, exclude_if=_is_empty)
    """The answer that is not preferred to the last turn."""
    desirable: bool | None = Field(None, exclude_if=_is_empty)
    """Whether the last turn is a good answer."""
    label: int | None = None
    """The class; null where the stage asks for none, or for something else than one class."""
    labels: tuple[int, ...] | None = Field(None, exclude_if=_is_empty)
    """Several classes at once, in order; or, with heads, that of each head among its own."""
    value: float | None = Field(None, exclude_if=_is_empty)
    """A number in the place of a class."""
    split: Split
    group: str
    """Clips of one group (one source video, one person) are never in two splits."""
    start_seconds: float | None = None
    """Start of the clip in its video; null is the video's start."""
    end_seconds: float | None = None
    """End of the clip in its video; null is the video's end."""
    num_frames: int
    """As `ClipMedium.num_frames`; 0 where the row has no medium."""
    content_hash: str | None = None
    """What identifies the bytes of its video: `sha256:…` of a local file, `etag:…` of an S3 object."""
    video_sha256: str | None = None
    """Of the content of its video, wherever it lies: models remember by it what they have seen."""
    short_side: int | None = Field(None, exclude_if=_is_empty)
    """Pixels of its first video's shorter side; null of a sound, and where nobody noted it."""

    @property
    def media(self) -> tuple[ClipMedium, ...]:
        """All of its videos, images and sounds, in the order of their tags."""
        if self.video is None:
            return ()
        first = ClipMedium(
            video=self.video,
            kind=self.kind,
            num_frames=self.num_frames,
            content_hash=self.content_hash,
            video_sha256=self.video_sha256,
        )
        return (first, *self.more_videos)

    @property
    def source(self) -> str:
        """What stands for it where one path is shown; empty where it has no medium."""
        return "" if self.video is None else first_path(self.video)


def first_path(video: str | tuple[str, ...]) -> str:
    """What stands for a clip where one path is shown: its video, or the first of its frame images."""
    return video if isinstance(video, str) else video[0]


class QuarantinedClip(Record):
    """A row with a video that cannot be used, and why."""

    clip_id: str
    dataset: str
    row: int
    video: str
    """The first one's path; empty where the row has none."""
    split: Split
    label: int | None = None
    """Null where the stage asks for none, as in a clip."""
    labels: tuple[int, ...] | None = Field(None, exclude_if=_is_empty)
    value: float | None = Field(None, exclude_if=_is_empty)
    group: str | None = None
    """Null in files of earlier versions."""
    video_sha256: str | None = None
    """Null where its video could not be read."""
    reason: str
    """Short and countable: missing, empty, not_a_video, no_video_stream, truncated, timeout, …"""
    detail: str
