"""Counts what the validation step found."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.artifacts import SPLITS, Clip, Labels, QuarantinedClip, Split, first_path
from components.data_validation.videos import CheckedVideo
from components.validation_report import Distribution, Duplicate, Leak, ValidationReport

_NUM_BINS = 24


@dataclass(frozen=True)
class CheckedClip:
    """A usable row and what its video is like."""

    clip: Clip
    video: CheckedVideo


def build_report(
    clips: Sequence[CheckedClip],
    quarantined: Sequence[QuarantinedClip],
    *,
    labels: Labels,
    max_invalid_fraction: float,
    fingerprint: str,
    seconds_taken: float,
) -> ValidationReport:
    """Everything that can be counted about usable and quarantined rows."""
    videos = list({checked.clip.video: checked.video for checked in clips}.values())
    bad_videos = {clip.video for clip in quarantined}
    return ValidationReport(
        fingerprint=fingerprint,
        datasets=dict(Counter([c.clip.dataset for c in clips] + [c.dataset for c in quarantined])),
        labels=labels,
        num_rows=len(clips) + len(quarantined),
        num_videos=len(videos) + len(bad_videos - {str(c.clip.video) for c in clips}),
        num_quarantined=len(quarantined),
        max_invalid_fraction=max_invalid_fraction,
        num_clips={split: sum(c.clip.split == split for c in clips) for split in SPLITS},
        num_groups={split: len({c.clip.group for c in clips if c.clip.split == split}) for split in SPLITS},
        label_counts={split: _count_labels(clips, split, labels) for split in SPLITS},
        quarantine_reasons=dict(Counter(clip.reason for clip in quarantined).most_common()),
        duplicates=_find_duplicates(clips, labels),
        leaks=_find_leaks(clips),
        codecs=dict(Counter(video.info.codec for video in videos).most_common()),
        sizes=dict(Counter(f"{video.info.width}x{video.info.height}" for video in videos).most_common()),
        seconds=_distribution([video.num_frames / video.info.fps for video in videos]),
        frames=_distribution([video.num_frames for video in videos]),
        fps=_distribution([video.info.fps for video in videos]),
        seconds_taken=round(seconds_taken, 2),
    )


def _count_labels(clips: Sequence[CheckedClip], split: Split, labels: Labels) -> tuple[int, ...]:
    counts = Counter(checked.clip.label for checked in clips if checked.clip.split == split)
    return tuple(counts[label] for label in range(labels.num_classes))


def _find_duplicates(clips: Sequence[CheckedClip], labels: Labels) -> tuple[Duplicate, ...]:
    same: dict[tuple[str, float | None, float | None], list[Clip]] = defaultdict(list)
    for checked in clips:
        clip = checked.clip
        same[checked.video.sha256, clip.start_seconds, clip.end_seconds].append(clip)
    return tuple(
        Duplicate(
            clip_ids=tuple(clip.clip_id for clip in found),
            videos=tuple(dict.fromkeys(first_path(clip.video) for clip in found)),
            splits=tuple(split for split in SPLITS if any(clip.split == split for clip in found)),
            label_names=tuple(dict.fromkeys(labels.label_names[clip.label] for clip in found)),
        )
        for found in same.values()
        if len(found) > 1
    )


def _find_leaks(clips: Sequence[CheckedClip]) -> tuple[Leak, ...]:
    by_content: dict[str, list[Clip]] = defaultdict(list)
    by_group: dict[str, list[Clip]] = defaultdict(list)
    for checked in clips:
        by_content[checked.video.sha256].append(checked.clip)
        by_group[checked.clip.group].append(checked.clip)
    contents = [("content", first_path(found[0].video), found) for found in by_content.values()]
    groups = [("group", name, found) for name, found in by_group.items()]
    return tuple(
        Leak(
            kind="content" if kind == "content" else "group", name=name, num_clips=dict(Counter(c.split for c in found))
        )
        for kind, name, found in contents + groups
        if len({clip.split for clip in found}) > 1
    )


def _distribution(values: Sequence[float]) -> Distribution | None:
    if not values:
        return None
    counts, edges = np.histogram(values, bins=_NUM_BINS)
    return Distribution(
        minimum=min(values),
        median=statistics.median(values),
        maximum=max(values),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
