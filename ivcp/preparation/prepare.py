"""The preparation step: every clip is decoded, resized and tokenised once, and written to shards.

`prepare_clips` does all of it in one process. On a cluster the work is divided: `plan_parts` names the
parts, `prepare_part` does one of them, and `merge_parts` makes the index.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ivcp import storage
from ivcp.data.cutoff import TooLongError
from ivcp.data.prepared.table import write_table
from ivcp.models.processor_settings import ProcessorSettings
from ivcp.preparation.fingerprint import fingerprint_run, fingerprint_settings
from ivcp.preparation.merge import Merged, merge_receipts
from ivcp.preparation.plan import Plan, plan_shards
from ivcp.preparation.publish import TABLE_FILE, ShardFolder, absolute, find_prepared
from ivcp.preparation.write import Written, write_shards
from ivcp.records import (
    ANNOTATIONS_FILE,
    INDEX_FILE,
    QUARANTINE_FILE,
    REPORT_JSON,
    PreparedIndex,
    QuarantinedClip,
    TableInfo,
    read_lines,
)
from ivcp.records.quarantine import check_invalid_fraction
from ivcp.records.validation import ValidationReport
from ivcp.settings import RunConfig
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import writable_folder

__all__ = ["TooLongError", "merge_parts", "plan_parts", "prepare_clips", "prepare_part"]

log = logging.getLogger(__name__)


def prepare_clips(config: RunConfig, *, validated_dir: Path, shards_uri: str, index_path: Path) -> PreparedIndex:
    """Prepares all validated clips, or finds them prepared already.

    Shards go to a folder of `shards_uri` (a local folder or s3:// prefix) that is named by the hash of all settings
    they depend on; the index goes there, last, and to `index_path`.

    Raises:
        TooLongError: rows are longer than `cutoff_len`.
        UnusableVideosError: too many videos cannot be used.
        FileNotFoundError: the validation step's files or the base model are missing.
        OSError: a folder cannot be written.
    """
    writable_folder(index_path.parent)
    run = _Preparation.of(config, validated_dir, shards_uri)
    index = run.find_complete() or run.write_all()
    index.write(index_path)
    _log_summary(index)
    return index


@dataclass(frozen=True)
class PartsPlan:
    """The parts that the preparation of a run is divided into."""

    parts: tuple[int, ...]
    """Their numbers: `preprocessing_parts` of them, but no more than there are shards."""
    is_prepared: bool
    """All clips are prepared already: there is one part, which finds them."""
    fingerprint: str
    """Hash of everything the prepared clips depend on."""


def plan_parts(config: RunConfig, *, validated_dir: Path, shards_uri: str) -> PartsPlan:
    """Divides a run.

    Raises:
        FileNotFoundError: the validation step's files are missing.
    """
    run = _Preparation.of(config, validated_dir, shards_uri)
    if run.find_complete() is not None:
        return PartsPlan(parts=(0,), is_prepared=True, fingerprint=run.fingerprint)
    num_parts = max(1, min(config.data.preprocessing_parts, len(run.plan.shards)))
    return PartsPlan(parts=tuple(range(num_parts)), is_prepared=False, fingerprint=run.fingerprint)


def prepare_part(config: RunConfig, *, validated_dir: Path, shards_uri: str, part: int) -> Written | None:
    """Writes the shards of one part; null where all clips are prepared already.

    Raises:
        UnusableVideosError: too many videos of this part alone cannot be used.
        FileNotFoundError: the validation step's files or the base model are missing.
        OSError: a folder cannot be written.
    """
    run = _Preparation.of(config, validated_dir, shards_uri)
    if run.find_complete() is not None:
        return None
    return run.write(part=part, num_parts=max(1, min(config.data.preprocessing_parts, len(run.plan.shards))))


def merge_parts(config: RunConfig, *, validated_dir: Path, shards_uri: str, index_path: Path) -> PreparedIndex:
    """Makes the index when all parts are done.

    Raises:
        IncompleteError: shards are missing.
        TooLongError: rows are longer than `cutoff_len`.
        UnusableVideosError: too many videos of all parts together cannot be used.
    """
    writable_folder(index_path.parent)
    run = _Preparation.of(config, validated_dir, shards_uri)
    index = run.find_complete() or run.publish()
    index.write(index_path)
    _log_summary(index)
    return index


@dataclass(frozen=True)
class _Preparation:
    """One run: what is prepared, how, and where it goes."""

    config: RunConfig
    stage: Stage
    settings: ProcessorSettings
    report: ValidationReport
    quarantined: tuple[QuarantinedClip, ...]
    annotations: Path
    folder: ShardFolder
    fingerprint: str

    @classmethod
    def of(cls, config: RunConfig, validated_dir: Path, shards_uri: str) -> _Preparation:
        stage, report = stage_of(config), ValidationReport.read(validated_dir / REPORT_JSON)
        settings = ProcessorSettings.of(config, special_tokens=stage.special_tokens)
        described = fingerprint_settings(
            settings,
            config.data.jpeg_quality,
            stage=config.method.stage,
            token_settings={key: value for key, value in config.flat().items() if key in stage.token_settings},
        )
        return cls(
            config=config,
            stage=stage,
            settings=settings,
            report=report,
            quarantined=tuple(read_lines(validated_dir / QUARANTINE_FILE, QuarantinedClip)),
            annotations=validated_dir / ANNOTATIONS_FILE,
            folder=ShardFolder(storage.join(absolute(shards_uri), described[:16])),
            fingerprint=fingerprint_run(described, report.fingerprint, num_views=config.protocol.test_num_clips),
        )

    @functools.cached_property
    def plan(self) -> Plan:
        return plan_shards(
            self.annotations,
            stage=self.stage,
            candidates=self.config.stored_candidates,
            data_fingerprint=self.report.fingerprint,
        )

    def find_complete(self) -> PreparedIndex | None:
        """The index of these clips where they are prepared already, and none failed then that may not fail now."""
        data = self.config.data
        index = find_prepared(self.folder, self.fingerprint, verify_checksums=data.prepared_verify_checksums)
        if index is None or len(index.failed) != len(self.quarantined):
            return None
        longest = index.max_tokens_with_answer if self.stage.reads_answers else index.max_tokens
        return index if longest <= data.cutoff_len else None

    def write(self, *, part: int, num_parts: int) -> Written:
        """Writes the shards of a part that are not there yet."""
        return write_shards(
            self.plan,
            self.plan.part(part, num_parts),
            self.folder,
            stage=self.stage,
            settings=self.settings,
            data=self.config.data,
            candidates=self.config.stored_candidates,
            check_failed=self.check_failed,
        )

    def write_all(self) -> PreparedIndex:
        """Writes all shards and the index, unless another process does that meanwhile."""
        with self.folder.owned(self.fingerprint[:16]):
            index = self.find_complete()
            if index is None:
                log.info("%s", self.write(part=0, num_parts=1))
                index = self.publish()
        return index

    def check_failed(self, failed: Sequence[QuarantinedClip]) -> None:
        """Checks the share of all rows that cannot be used.

        Raises:
            UnusableVideosError: it is too high.
        """
        allowed = self.config.data.max_invalid_fraction
        if len(self.quarantined) + len(failed) <= allowed * self.report.num_rows:
            return  # called for each failure
        check_invalid_fraction(
            (*self.quarantined, *failed),
            num_rows=self.report.num_rows,
            max_invalid_fraction=allowed,
            listed_in="the log of this step and the validation step's quarantine list",
        )

    def publish(self) -> PreparedIndex:
        """Writes the table and, last, the index."""
        merged = merge_receipts(self.plan, self.folder)
        self.check_failed(merged.failed)
        merged.check_lengths(self.config.data.cutoff_len, with_answers=self.stage.reads_answers)
        name = self.fingerprint[:16]
        with self.folder.workspace(name) as workspace:
            table = write_table(workspace / TABLE_FILE, merged.shards, merged.columns(), columns=self.stage.columns)
        index = self._describe(merged, table.model_copy(update={"file": f"{name}/{TABLE_FILE}"}))
        with self.folder.workspace(name) as workspace:
            index.write(workspace / INDEX_FILE)
        self.folder.remove_partial_files(self.plan.shards)
        return index

    def _describe(self, merged: Merged, table: TableInfo) -> PreparedIndex:
        return PreparedIndex(
            fingerprint=self.fingerprint,
            root_uri=self.folder.root_uri,
            shards=merged.shards,
            table=table,
            labels=self.report.labels,
            video=self.config.video,
            stage=self.config.method.stage,
            special_tokens=self.stage.special_tokens,
            prompts=merged.prompts(self.stage),
            num_clips=merged.num_clips(),
            label_counts=merged.label_counts(self.report.labels),
            failed=(*self.quarantined, *merged.failed),
            max_tokens=int(merged.num_prompt_tokens.max()),
            max_tokens_with_answer=int(merged.num_tokens.max()),
            num_answers=int(np.count_nonzero(merged.num_tokens > merged.num_prompt_tokens)),
            mean_tokens=float(merged.num_prompt_tokens.mean()),
            media=self.plan.media,
            data_fingerprint=self.report.fingerprint,
        )


def _log_summary(index: PreparedIndex) -> None:
    megabytes = sum(shard.num_bytes for shard in index.shards) / 1e6
    log.info(
        "%d clips in %d shards (%.0f MB), at most %d tokens, %.0f on average: %s",
        sum(index.num_clips.values()),
        len(index.shards),
        megabytes,
        index.max_tokens,
        index.mean_tokens,
        index.root_uri,
    )
