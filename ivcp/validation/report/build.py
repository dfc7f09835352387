"""Counts what the validation step found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.records import SPLITS, Labels, Split
from ivcp.records.validation import Distribution, ValidationReport
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.estimate import describe_tokens, estimate_needs
from ivcp.validation.report.contradictions import find_contradictions
from ivcp.validation.report.distributions import distribution_of
from ivcp.validation.report.findings import find_duplicates, find_leaks, find_near_duplicates

_USED = (
    "FROM video WHERE id IN (SELECT clip_video.video FROM clip JOIN clip_video ON clip_video.clip = clip.id "
    "WHERE clip.reason IS NULL)"
)
_SEEN = f"{_USED} AND kind != 'audio'"
_SECONDS = """
SELECT MIN(COALESCE(clip.stop, last + 1 / fps), last + 1 / fps) - COALESCE(clip.start, first)
FROM clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video
WHERE clip.reason IS NULL AND video.kind = 'video'
"""


def build_report(
    catalog: Catalog,
    config: RunConfig,
    *,
    labels: Labels | None,
    fingerprint: str,
    tokens_missing: str | None,
    seconds_taken: float,
) -> ValidationReport:
    """Everything that can be counted about usable and quarantined rows.

    `tokens_missing` says why tokens were not counted; null where they were.
    """
    data = config.data
    duplicates = find_duplicates(catalog, labels, most=data.report_examples)
    leaks = find_leaks(catalog, most=data.report_examples)
    alike = find_near_duplicates(
        catalog,
        labels,
        num_looks=data.near_duplicate_frames,
        distance=data.near_duplicate_distance,
        most=data.report_examples,
    )
    contradictions = find_contradictions(catalog, labels, most=data.report_examples)
    tokens = None if tokens_missing else describe_tokens(catalog, config)
    return ValidationReport(
        fingerprint=fingerprint,
        datasets=_count(catalog, "SELECT dataset, COUNT(*) FROM clip GROUP BY 1 ORDER BY MIN(id)"),
        labels=labels,
        num_rows=catalog.number("SELECT COUNT(*) FROM clip"),
        num_videos=catalog.number("SELECT COUNT(*) FROM video WHERE kind = 'video'"),
        num_others=_count(catalog, "SELECT kind, COUNT(*) FROM video WHERE kind <> 'video' GROUP BY 1 ORDER BY 1"),
        num_quarantined=catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NOT NULL"),
        max_invalid_fraction=data.max_invalid_fraction,
        num_clips=_by_split(_count(catalog, "SELECT split, COUNT(*) FROM clip WHERE reason IS NULL GROUP BY 1")),
        num_groups=_by_split(
            _count(catalog, "SELECT split, COUNT(DISTINCT part) FROM clip WHERE reason IS NULL GROUP BY 1")
        ),
        label_counts=_count_labels(catalog, labels),
        values=_values(catalog, labels),
        quarantine_reasons=_count(
            catalog, "SELECT reason, COUNT(*) FROM clip WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, MIN(id)"
        ),
        num_duplicates=duplicates.number,
        num_label_conflicts=duplicates.num_conflicts,
        duplicates=duplicates.examples,
        num_contradicting_looks=contradictions.num_looks,
        contradictions=contradictions.examples,
        num_leaks=leaks.number,
        leaks=leaks.examples,
        num_near_duplicates=alike.number,
        num_near_leaks=alike.num_leaks,
        num_alike_in_groups=alike.num_in_groups,
        num_uniform=alike.num_uniform,
        near_duplicates=alike.examples if data.near_duplicate_frames else None,
        codecs=_count(catalog, f"SELECT codec, COUNT(*) {_USED} GROUP BY 1 ORDER BY 2 DESC, 1"),
        sizes=_count(catalog, f"SELECT width || 'x' || height, COUNT(*) {_SEEN} GROUP BY 1 ORDER BY 2 DESC, 1"),
        seconds=distribution_of(catalog, _SECONDS),
        frames=distribution_of(catalog, f"SELECT num_frames {_USED} AND kind = 'video'"),
        fps=distribution_of(catalog, f"SELECT fps {_USED} AND kind = 'video'"),
        megapixels=distribution_of(catalog, f"SELECT width * height / 1e6 {_SEEN}"),
        tokens=tokens,
        tokens_missing=tokens_missing,
        estimate=estimate_needs(catalog, config, tokens) if tokens else None,
        seconds_taken=round(seconds_taken, 2),
    )


def _values(catalog: Catalog, labels: Labels | None) -> dict[Split, Distribution] | None:
    if labels is None or labels.kind != "value":
        return None
    found = {
        split: distribution_of(catalog, f"SELECT value FROM clip WHERE reason IS NULL AND split = '{split}'")
        for split in SPLITS
    }
    return {split: values for split, values in found.items() if values is not None}


def _count(catalog: Catalog, sql: str) -> dict[Any, int]:
    return dict(catalog.ask(sql))


def _by_split(counts: Mapping[str, int]) -> dict[Split, int]:
    return {split: counts.get(split, 0) for split in SPLITS}


def _count_labels(catalog: Catalog, labels: Labels | None) -> dict[Split, tuple[int, ...]]:
    if labels is None:
        return {}
    label, source = ("0", "clip") if labels.kind == "value" else ("class", catalog.classes_of_clips)
    counts = {
        (split, label): number
        for split, label, number in catalog.ask(
            f"SELECT split, {label}, COUNT(*) FROM {source} WHERE reason IS NULL GROUP BY 1, 2"
        )
    }
    return {split: tuple(counts.get((split, label), 0) for label in range(labels.num_classes)) for split in SPLITS}
