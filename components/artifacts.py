"""What passes between steps: file names, row types, and how they are read and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.config import VideoConfig

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

ANNOTATIONS_FILE = "annotations.jsonl"
LABELS_FILE = "labels.json"
QUARANTINE_FILE = "quarantine.jsonl"
REPORT_HTML = "report.html"
REPORT_JSON = "report.json"
INDEX_FILE = "index.json"
RUN_CONFIG_FILE = "run_config.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"
CONFUSION_MATRIX_FILE = "confusion_matrix.png"
MODEL_CARD_FILE = "README.md"
CLIPS_DIR = "clips"
"""Folder in an output folder that holds its validated annotations and prepared clips."""
CHECKPOINT_FOLDER = re.compile(r"checkpoint-(\d+)")
"""Name of a checkpoint's folder, with its step."""
CHECKPOINT_FILE = "checkpoint.json"
"""Last file of a checkpoint: without it the checkpoint was left half-written."""


class Record(BaseModel):
    """What all records share: frozen, no unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        cache_strings="keys",  # values are paths and ids, each of which comes once
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads one JSON file.

        Raises:
            FileNotFoundError: the step that writes it has not run, or its folder is incomplete.
            ValueError: the file does not hold such a record.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} is missing: expected a {cls.__name__}") from error
        except ValidationError as error:
            raise ValueError(f"{path} is no {cls.__name__}: {error}") from error

    def write(self, path: Path) -> None:
        """Writes one JSON file, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(
            json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        partial.replace(path)


RecordT = TypeVar("RecordT", bound=Record)


def writable_folder(path: Path) -> Path:
    """Makes the folder where it is missing, and makes sure that it can be written before any work is done.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"output folder {path} cannot be written ({error}): choose another, or correct its rights"
        ) from error
    return path


def flush_to_disk(path: Path) -> None:
    """Makes sure that a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(record.model_dump_json() + "\n" for record in records)
    partial.replace(path)


def read_lines(path: Path, kind: type[RecordT]) -> list[RecordT]:
    """Reads the JSON lines that `write_lines` wrote."""
    with path.open(encoding="utf-8") as file:
        return [kind.model_validate_json(line) for line in file if line.strip()]


class Labels(Record):
    """The classes: a label is an index into `label_names`."""

    label_names: tuple[str, ...] = Field(min_length=2)
    """Class names; the position is the label."""
    reversed_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of classes that differ only in the order of time."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names holds a name twice")
        unknown = {name for pair in self.reversed_pairs for name in pair} - set(self.label_names)
        if unknown:
            raise ValueError(f"reversed_pairs names unknown classes: {', '.join(sorted(unknown))}")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def partner(self) -> dict[int, int]:
        """Each label of a reversed pair → the other one."""
        index = {name: label for label, name in enumerate(self.label_names)}
        both = (*self.reversed_pairs, *((b, a) for a, b in self.reversed_pairs))
        return {index[a]: index[b] for a, b in both}


class Message(Record):
    """One turn of a conversation; `content` holds `<video>` tags and the action token as text."""

    role: Literal["system", "user", "assistant"]
    content: str


class Clip(Record):
    """One validated sample: a row of `annotations.jsonl`."""

    clip_id: str
    """Unique and stable: `<data set>:<row>`."""
    dataset: str
    row: int
    """Row in the data set's file, from 0."""
    video: str | tuple[str, ...]
    """Path or s3:// URI of the video, or of its frame images in order."""
    messages: tuple[Message, ...]
    label: int
    split: Split
    group: str
    """Clips of one group (one source video, one person) are never in two splits."""
    start_seconds: float | None = None
    """Start of the clip in its video; null is the video's start."""
    end_seconds: float | None = None
    """End of the clip in its video; null is the video's end."""
    num_frames: int
    """Frames of the whole video, counted by decoding."""
    content_hash: str | None = None
    """What identifies the bytes of its video: `sha256:…` of a local file, `etag:…` of an S3 object."""


def first_path(video: str | tuple[str, ...]) -> str:
    """What stands for a clip where one path is shown: its video, or the first of its frame images."""
    return video if isinstance(video, str) else video[0]


class QuarantinedClip(Record):
    """A row whose video cannot be used, and why."""

    clip_id: str
    dataset: str
    row: int
    video: str
    split: Split
    label: int
    reason: str
    """Short and countable: missing, empty, not_a_video, no_video_stream, truncated, timeout, …"""
    detail: str


class ShardInfo(Record):
    """One file of prepared clips."""

    file: str
    """Name below the index's `root_uri`."""
    split: Split
    num_clips: int
    num_bytes: int
    sha256: str


class TableInfo(Record):
    """The file with one row per prepared clip, which `components.clip_table` reads."""

    file: str
    """Name below the index's `root_uri`."""
    num_bytes: int
    sha256: str


class PreparedIndex(Record):
    """`index.json`: everything a reader of prepared clips needs to know."""

    schema_version: Literal[2] = 2
    fingerprint: str
    """Hash of everything the prepared clips depend on."""
    root_uri: str
    """Folder or s3:// prefix with the shards."""
    shards: tuple[ShardInfo, ...]
    """Those of training clips first, then validation, then test."""
    table: TableInfo
    """Rows in the order of `shards` and of the clips in them."""
    labels: Labels
    video: VideoConfig
    action_token: str
    prompt: tuple[Message, ...]
    """The conversation up to the action token that the predictor uses: the most frequent one in training."""
    num_clips: dict[Split, int]
    label_counts: dict[Split, tuple[int, ...]]
    """Clips of each label, by split."""
    failed: tuple[QuarantinedClip, ...] = ()
    """Clips that could not be decoded: an error in the metrics of their split."""
    max_tokens: int
    """Length of the longest sample, up to the action token."""
    mean_tokens: float
    max_tokens_with_answer: int = 0
    """Length of the longest sample with its answer behind the action token."""
    num_answers: int = 0
    """Samples with an answer behind the action token."""
    data_fingerprint: str
    """Hash of the validated annotations."""


class Prediction(Record):
    """One row of `predictions.jsonl`."""

    clip_id: str
    video: str
    label: int | None
    prediction: int | None
    """Null for a clip that could not be decoded."""
    label_name: str | None
    predicted_name: str | None
    confidence: float
    """Softmax probability of the prediction; 0 for a clip that could not be decoded."""
    logits: tuple[float, ...]
    """Empty for a clip that could not be decoded."""
