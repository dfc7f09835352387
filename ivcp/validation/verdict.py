"""Whether the data can be used as they are: by the settings `on_leaks`, `on_duplicates`, and so on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ivcp.data.problems import AnnotationError
from ivcp.records.validation import Contradiction, Leak, NearDuplicate, ValidationReport
from ivcp.settings import DataConfig
from ivcp.settings.sections.data import Strictness

log = logging.getLogger(__name__)
_NAMED = 5


@dataclass(frozen=True)
class _Finding:
    key: str
    strictness: Strictness
    text: str
    way_out: str


def check_findings(report: ValidationReport, data: DataConfig, *, page: Path) -> None:
    """Logs what the settings warn of, and refuses what they call errors, all at once; `page` shows the details.

    Raises:
        AnnotationError: leaks, duplicates or contradicting labels that a setting makes an error.
    """
    findings = _findings(report, data)
    for finding in findings:
        if finding.strictness == "warn":
            log.warning("%s (%s: warn)", finding.text, finding.key)
    refused = [finding for finding in findings if finding.strictness == "error"]
    if refused:
        lines = (f"{finding.text}\n{finding.way_out}, or set {finding.key}: warn to continue" for finding in refused)
        raise AnnotationError("\n".join(lines) + f"\nThe report names them: {page}")


def _findings(report: ValidationReport, data: DataConfig) -> list[_Finding]:
    found = []
    if report.num_leaks:
        text = f"{report.num_leaks} leaks: the same video content or group stands in several splits, so that accuracy "
        way_out = "Keep each group and each video in one split"
        found.append(_Finding("on_leaks", data.on_leaks, text + f"says too much{_name_leaks(report.leaks)}", way_out))
    if report.num_near_leaks:
        text = f"{report.num_near_leaks} sets of videos that look alike stand in several splits"
        way_out = "Look at them in the report and give rows that show the same one group"
        examples = _name_alike(report.near_duplicates or ())
        found.append(_Finding("on_near_duplicates", data.on_near_duplicates, text + examples, way_out))
    if report.num_label_conflicts or report.num_contradicting_looks:
        found.append(_contradictions(report, data))
    if report.num_duplicates:
        examples = "; ".join(", ".join(same.clip_ids[:3]) for same in report.duplicates[:_NAMED])
        text = f"{report.num_duplicates} contents stand in several rows: {examples}"
        found.append(_Finding("on_duplicates", data.on_duplicates, text, "Keep one row of each"))
    return found


def _contradictions(report: ValidationReport, data: DataConfig) -> _Finding:
    number = report.num_label_conflicts + report.num_contradicting_looks
    if report.labels is None:
        text = f"{number} contradictions: the same answer to the same prompt is good in one row and bad in another"
        way_out = "Correct the tags, or take the rows out"
    else:
        text = (
            f"{number} contradictions: {report.num_label_conflicts} contents and {report.num_contradicting_looks} sets "
            "of videos that look alike have several classes"
        )
        way_out = "Look at their pictures in the report and correct the labels"
    text += _name_contradictions(report.contradictions)
    return _Finding("on_label_conflicts", data.on_label_conflicts, text, way_out)


def _name_leaks(leaks: Sequence[Leak]) -> str:
    named = [
        f"\n  the same {leak.kind} {leak.name}: " + ", ".join(f"{n} in {split}" for split, n in leak.num_clips.items())
        for leak in leaks[:_NAMED]
    ]
    return "".join(named)


def _name_contradictions(found: Sequence[Contradiction]) -> str:
    named = [
        "\n  "
        + ", ".join(
            f"{clip.clip_id} {clip.label_name}" + (f" ({clip.video})" if clip.video else "") for clip in same.clips[:4]
        )
        for same in found[:_NAMED]
    ]
    return "".join(named)


def _name_alike(found: Sequence[NearDuplicate]) -> str:
    named = [
        f"\n  {', '.join(alike.videos[:3])}: " + ", ".join(f"{n} in {split}" for split, n in alike.num_clips.items())
        for alike in found[:_NAMED]
        if len(alike.num_clips) > 1
    ]
    return "".join(named)
