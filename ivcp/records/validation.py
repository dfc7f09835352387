"""The report of the validation step, which the preparation step reads too."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ivcp.records.annotations import Labels, MediumKind, Split
from ivcp.records.record import Record


def _is_none(value: object) -> bool:
    return value is None


class Distribution(Record):
    """How a number is spread over videos."""

    minimum: float
    median: float
    maximum: float
    edges: tuple[float, ...]
    """Edges of the histogram's bins, one more than `counts`."""
    counts: tuple[int, ...]


class Duplicate(Record):
    """Clips with the same content: the same file content and span, and without classes the same text as well."""

    num_clips: int
    clip_ids: tuple[str, ...]
    """Some of them."""
    videos: tuple[str, ...]
    """Those of these clips."""
    splits: tuple[Split, ...]
    """Splits that hold one of them; more than one is a leak."""
    label_names: tuple[str, ...]
    """Classes that they have; more than one is a contradiction."""


class ContradictingClip(Record):
    """One of several clips that show the same."""

    clip_id: str
    video: str | None
    """Null where the row has none."""
    label_name: str
    """Its class; of an answer with a tag `good` or `bad`."""
    split: Split


class Contradiction(Record):
    """Clips that show the same and have several classes."""

    kind: Literal["content", "look", "answer"]
    """The same file content and span, or videos that look alike; or the same answer to the same prompt."""
    num_clips: int
    clips: tuple[ContradictingClip, ...]
    """Some of each class, or tag."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes of `clips`."""
        return tuple(dict.fromkeys(clip.label_name for clip in self.clips))


class NearDuplicate(Record):
    """Videos of several groups that look alike, though their bytes differ: each like at least one of the others."""

    num_videos: int
    videos: tuple[str, ...]
    """Some of them."""
    num_clips: dict[Split, int]
    """Clips of each split; more than one split is a leak, if they show the same."""
    groups: tuple[str, ...]
    """Some of them."""
    label_names: tuple[str, ...]


class Leak(Record):
    """What stands in more than one split."""

    kind: Literal["content", "group"]
    """The same file content, or the same group."""
    name: str
    """The first video with the content, or the group."""
    num_clips: dict[Split, int]


class LongRow(Record):
    """A row that does not fit `cutoff_len`."""

    clip_id: str
    num_tokens: int


class TokenCounts(Record):
    """Tokens of the usable clips, counted without decoding by the model's own processor."""

    model: str
    cutoff_len: int
    with_answers: bool
    """Whether answers behind the action token are counted, because their loss is."""
    distribution: Distribution
    mean: float
    total: dict[Split, int]
    """Tokens of all clips of a split: what one epoch reads."""
    num_too_long: int
    too_long: tuple[LongRow, ...]
    """The longest of them first."""
    frame_sizes: dict[str, int]
    """Videos of clips of each size that frames are resized to, width x height."""
    frames: Distribution | None
    """Frames that are sampled from a video of a clip; null where no clip has one."""
    num_pixels: int
    """Pixels of all sampled frames that preparation stores."""
    most_pixels: int
    """Pixels of the largest clip."""


class Estimate(Record):
    """What the next steps will need."""

    shard_bytes: int
    """Disk for the prepared clips, when frames are stored as they are."""
    clip_bytes: int
    """Memory for the sampled frames of the largest clip: each worker of the preparation and of training holds some."""
    decoding_bytes: int
    """Memory for the full-size frames that a worker of the preparation holds at once."""
    weight_bytes: int | None
    """Size of the base model's files; null where it is no local folder."""
    batch_size: int
    """Clips per optimizer step of one process."""
    steps_per_epoch: int
    """Optimizer steps of one process; N processes need an Nth."""
    num_steps: int
    """Optimizer steps of the whole training, of one process."""
    batch_tokens: int
    """Tokens of the largest forward pass, padding counted."""


class ValidationReport(Record):
    """`report.json`."""

    fingerprint: str
    """Hash of the annotations, the labels and the content of every video."""
    datasets: dict[str, int]
    """Rows of each data set."""
    labels: Labels | None
    """Null where the stage asks for no class."""
    num_rows: int
    num_videos: int
    num_others: dict[MediumKind, int] = Field(default_factory=dict)
    """Media of each other kind that there is."""
    num_quarantined: int
    """Rows with a video that cannot be used."""
    max_invalid_fraction: float
    num_clips: dict[Split, int]
    """Usable rows of each split."""
    num_groups: dict[Split, int]
    label_counts: dict[Split, tuple[int, ...]]
    """Usable rows of each label, by split; empty where there are none. A row with several classes counts for each; of a
    number, all rows are of one."""
    values: dict[Split, Distribution] | None = Field(None, exclude_if=_is_none)
    """Of the number that is to be predicted, by split; null where it is classes."""
    quarantine_reasons: dict[str, int]
    num_duplicates: int
    """Contents that several clips have."""
    num_label_conflicts: int
    """Those of them that have several labels; or, of answers with a tag, those that are good in one row and bad in
    another, which are no duplicates."""
    duplicates: tuple[Duplicate, ...]
    """At most `report_examples`, contradictions first."""
    num_contradicting_looks: int = 0
    """Sets of videos that look alike, whose clips have several classes."""
    contradictions: tuple[Contradiction, ...] = ()
    """At most `report_examples` of each kind."""
    num_leaks: int
    leaks: tuple[Leak, ...]
    """At most `report_examples` of each kind."""
    num_near_duplicates: int
    """Sets of videos of several groups that look alike and do not contradict each other."""
    num_near_leaks: int
    """Those of them that stand in several splits."""
    num_alike_in_groups: int
    """Sets of videos of one group that look alike, which is nothing unusual."""
    num_uniform: int
    """Videos that were not compared, because what was looked at is black or of one colour."""
    near_duplicates: tuple[NearDuplicate, ...] | None
    """At most `report_examples`, those in several splits first; null when videos were not compared."""
    codecs: dict[str, int]
    """Videos of each codec."""
    sizes: dict[str, int]
    """Videos of each size, width x height as displayed."""
    seconds: Distribution | None
    """Length of the clips; null when none can be used."""
    frames: Distribution | None
    """Of the videos, as `fps` and `megapixels` are."""
    fps: Distribution | None
    megapixels: Distribution | None
    """Of a frame."""
    tokens: TokenCounts | None
    """Null where `tokens_missing` says why."""
    tokens_missing: str | None
    estimate: Estimate | None
    """Null where tokens were not counted."""
    seconds_taken: float

    @property
    def invalid_fraction(self) -> float:
        """Share of rows whose video cannot be used."""
        return self.num_quarantined / self.num_rows

    @property
    def summary(self) -> str:
        """The result in a few words."""
        clips = ", ".join(f"{number} {split}" for split, number in self.num_clips.items() if number)
        found = f"{self.num_quarantined} in quarantine, {self.num_leaks} leaks"
        return f"{clips or 'no'} clips of {self.media_in_words}, {found}"

    @property
    def media_in_words(self) -> str:
        """For example "3 videos and 5 images"."""
        return " and ".join(f"{number} {what}" for what, number in self.num_media.items())

    @property
    def num_media(self) -> dict[str, int]:
        """Videos, images and so on, in plural, with their number; no videos where there are others alone."""
        others = {f"{kind}s": number for kind, number in self.num_others.items()}
        return others if others and not self.num_videos else {"videos": self.num_videos, **others}

    def headline(self) -> dict[str, float]:
        """The numbers by which runs are compared."""
        counts = {f"{split}_clips": float(number) for split, number in self.num_clips.items()}
        tokens = (
            {"mean_tokens": self.tokens.mean, "max_tokens": self.tokens.distribution.maximum} if self.tokens else {}
        )
        return {
            "rows": self.num_rows,
            "videos": self.num_videos,
            **{f"{kind}s": float(number) for kind, number in self.num_others.items()},
            **({"classes": self.labels.num_classes} if self.labels and self.values is None else {}),
            **counts,
            "quarantined": self.num_quarantined,
            "leaks": self.num_leaks,
            "near_leaks": self.num_near_leaks,
            "duplicates": self.num_duplicates,
            "label_conflicts": self.num_label_conflicts,
            **tokens,
        }
