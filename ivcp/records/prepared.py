"""Prepared samples: their shards, their table and their index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ivcp.records.annotations import Labels, Message, QuarantinedClip, Split
from ivcp.records.record import Record
from ivcp.settings import VideoConfig


def _is_empty(value: object) -> bool:
    """Of what is not written where all samples have videos."""
    return value == ()


def _is_none(value: object) -> bool:
    """Of what is not written where there is none."""
    return value is None


class ShardInfo(Record):
    """One file of prepared clips."""

    file: str
    """Name below the index's `root_uri`."""
    split: Split
    num_clips: int
    num_bytes: int
    sha256: str


class TableInfo(Record):
    """The file with one row per prepared clip, which `ivcp.data.prepared.table` reads."""

    file: str
    """Name below the index's `root_uri`."""
    num_bytes: int
    sha256: str


class Fold(Record):
    """One of the folds that the training clips of an index are divided into; numbers are of rows among these."""

    number: int
    """Which one, from 1."""
    of: int
    """How many there are."""
    test: tuple[int, ...]
    """Clips of this fold, ascending: they are the test split."""
    val: tuple[int, ...] = ()
    """Clips of the validation split, ascending, where `val_size` cuts one."""

    @property
    def name(self) -> str:
        """For example "fold 2 of 5"."""
        return f"fold {self.number} of {self.of}"


class PreparedIndex(Record):
    """`index.json`: everything a reader of prepared clips needs to know."""

    schema_version: Literal[4] = 4
    fingerprint: str
    """Hash of everything the prepared clips depend on."""
    root_uri: str
    """Folder or s3:// prefix with the shards."""
    shards: tuple[ShardInfo, ...]
    """Those of training clips first, then validation, then test."""
    table: TableInfo
    """Rows in the order of `shards` and of the clips in them."""
    labels: Labels | None
    """Null where the stage asks for no class."""
    video: VideoConfig
    stage: str
    """What the samples were prepared for: it says which tokens are special, and which columns there are."""
    special_tokens: tuple[str, ...]
    prompts: tuple[tuple[Message, ...], ...]
    """The most frequent prompts of training clips, at most 16, the most frequent first."""
    num_clips: dict[Split, int]
    label_counts: dict[Split, tuple[int, ...]]
    """Clips of each label, by split; empty where there are none."""
    failed: tuple[QuarantinedClip, ...] = ()
    """Clips that could not be decoded: an error in the metrics of their split."""
    max_tokens: int
    """Length of the longest prompt."""
    mean_tokens: float
    max_tokens_with_answer: int = 0
    """Length of the longest sample, its answer included."""
    num_answers: int = 0
    """Samples with an answer behind their prompt."""
    media: tuple[str, ...] = Field((), exclude_if=_is_empty)
    """The kinds of media of a sample, as `image+video`, or `none`: each combination that occurs, sorted. Empty where
    all have videos alone, or nobody noted it."""
    data_fingerprint: str
    """Hash of the validated annotations."""
    fold: Fold | None = Field(None, exclude_if=_is_none)
    """Where set, the splits are those of a fold, whatever `shards` says; `num_clips`, `label_counts`, `failed` and
    `fingerprint` are of it."""

    @property
    def classes(self) -> Labels:
        """The classes, for what works with classes alone.

        Raises:
            ValueError: there are none.
        """
        if self.labels is None:
            raise ValueError(f"these clips were prepared for stage: {self.stage}, which has no classes")
        return self.labels

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the predictor asks, unless `served_prompt` says something else."""
        return self.prompts[0]
