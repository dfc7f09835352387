"""The report of the validation step, which the preparation step reads too."""

from __future__ import annotations

from typing import Literal

from components.artifacts import Labels, Record, Split


class Distribution(Record):
    """How a number is spread over videos."""

    minimum: float
    median: float
    maximum: float
    edges: tuple[float, ...]
    """Edges of the histogram's bins, one more than `counts`."""
    counts: tuple[int, ...]


class Duplicate(Record):
    """Clips with the same content: the same file content and the same span."""

    clip_ids: tuple[str, ...]
    videos: tuple[str, ...]
    splits: tuple[Split, ...]
    """Splits that hold one of them; more than one is a leak."""
    label_names: tuple[str, ...]
    """Classes that they have; more than one is a contradiction."""


class Leak(Record):
    """What stands in more than one split."""

    kind: Literal["content", "group"]
    """The same file content, or the same group."""
    name: str
    """The first video with the content, or the group."""
    num_clips: dict[Split, int]


class ValidationReport(Record):
    """`report.json`."""

    fingerprint: str
    """Hash of the annotations, the labels and the content of every video."""
    datasets: dict[str, int]
    """Rows of each data set."""
    labels: Labels
    num_rows: int
    num_videos: int
    num_quarantined: int
    """Rows whose video cannot be used."""
    max_invalid_fraction: float
    num_clips: dict[Split, int]
    """Usable rows of each split."""
    num_groups: dict[Split, int]
    label_counts: dict[Split, tuple[int, ...]]
    """Usable rows of each label, by split."""
    quarantine_reasons: dict[str, int]
    duplicates: tuple[Duplicate, ...]
    leaks: tuple[Leak, ...]
    codecs: dict[str, int]
    """Videos of each codec."""
    sizes: dict[str, int]
    """Videos of each size, width x height as displayed."""
    seconds: Distribution | None
    """Length of the videos; null when none can be used."""
    frames: Distribution | None
    fps: Distribution | None
    seconds_taken: float

    @property
    def invalid_fraction(self) -> float:
        """Share of rows whose video cannot be used."""
        return self.num_quarantined / self.num_rows

    @property
    def summary(self) -> str:
        """The result in a few words."""
        clips = ", ".join(f"{number} {split}" for split, number in self.num_clips.items() if number)
        return (
            f"{clips} clips of {self.num_videos} videos, {self.num_quarantined} in quarantine, {len(self.leaks)} leaks"
        )
