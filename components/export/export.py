"""The exported model: merged, checked, described and registered."""

from __future__ import annotations

import logging
from pathlib import Path

from components.artifacts import MODEL_CARD_FILE, PreparedIndex, Record, Split
from components.clip_processor import PreparedClip
from components.config import RunConfig
from components.evaluation_metrics import EvaluationMetrics
from components.export.merge import MergeCheck, merge_adapter
from components.export.model_card import model_card
from components.model_files import check_complete
from components.prepared_clips import PreparedClips
from components.run_identity import CONFIGURATION_TAG, configuration_fingerprint
from components.tracking import ModelVersionRef, register_model, tracked_run

log = logging.getLogger(__name__)

EXPORT_RESULT_FILE = "export_result.json"
_CHECKED_CLIPS = 16


class ExportResult(Record):
    """What export did: `export_result.json` in the model directory."""

    model_dir: str
    merge: MergeCheck
    registered: ModelVersionRef

    @property
    def summary(self) -> str:
        """The result in a few words."""
        version = self.registered
        return f"{version.name} v{version.version} ({version.alias}), |Δ logit| ≤ {self.merge.max_logit_difference:.1g}"


def export_model(
    config: RunConfig, *, adapter_dir: Path, index: PreparedIndex, metrics: EvaluationMetrics, export_dir: Path
) -> ExportResult:
    """Writes the merged model of `adapter_dir` to `export_dir` and registers it under the run's alias.

    Raises:
        MergeError: the merged model answers differently; nothing is registered then.
        ModelFilesError: `adapter_dir` is incomplete.
    """
    check_complete(adapter_dir)
    checked = merge_adapter(
        adapter_dir, export_dir, clips=_clips_to_check(index), max_shard_gigabytes=config.export.export_size
    )
    (export_dir / MODEL_CARD_FILE).write_text(model_card(export_dir, metrics=metrics), encoding="utf-8")
    with tracked_run(config, step="export") as run:
        registered = register_model(
            export_dir,
            config=config,
            metrics=metrics.headline(),
            run_id=run.run_id,
            tags=metrics.fingerprints() | {CONFIGURATION_TAG: configuration_fingerprint(config)},
        )
        run.log_metrics({"export/max_logit_difference": checked.max_logit_difference})
    result = ExportResult(model_dir=str(export_dir), merge=checked, registered=registered)
    result.write(export_dir / EXPORT_RESULT_FILE)
    return result


def _clips_to_check(index: PreparedIndex) -> list[PreparedClip]:
    order: tuple[Split, ...] = ("test", "val", "train")
    split = next(split for split in order if index.num_clips.get(split))
    clips = PreparedClips(index, split)
    return [clips[i] for i in range(min(_CHECKED_CLIPS, len(clips)))]
