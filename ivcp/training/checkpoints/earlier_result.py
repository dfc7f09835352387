"""What an earlier training left in an output folder beside its checkpoints: recognised, and removed.

A new training removes it before its first step: whoever looks at the folder then finds no weights in it, rather than
those of another run. Nothing else is touched, whatever it is called: not in a folder that no training of this project
ended in, nor files of other names, nor an exported model in a folder of its own, which may be registered.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.records import (
    CLASS_TABLE_FILE,
    CONFIDENCE_FILE,
    CONFUSION_MATRIX_FILE,
    CURVES_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    REPORT_HTML,
    RESULTS_DIR,
    RUN_CONFIG_FILE,
    TRAINING_RESULT_FILE,
    UNFINISHED_FILE,
)
from ivcp.records.evaluation import SMOKE_CLIP_FILE
from ivcp.records.export import EXPORT_RESULT_FILE
from ivcp.records.language_evaluation import SMOKE_QUESTION_FILE, LanguageMetrics, read_metrics
from ivcp.records.target_evaluation import CONFUSION_OF_HEAD, SCATTER_FILE, TargetMetrics
from ivcp.settings import ConfigError, read_model_config
from ivcp.stages.directory import OWN_FILES
from ivcp.stages.model_info import is_model_directory
from ivcp.stages.registry import stage_of
from ivcp.training.run_record import RUN_RECORD_FILE

log = logging.getLogger(__name__)

_WEIGHTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "trained_weights.safetensors",
    "model.safetensors",
    "model-[0-9]*-of-[0-9]*.safetensors",
    "model.safetensors.index.json",
)
_OF_TRANSFORMERS = (MODEL_CONFIG, "generation_config.json")
_OTHERS_WEIGHTS = (*_WEIGHTS, "adapter_model.bin", "pytorch_model*.bin")
_OF_TRAINER = ("trainer_state.json", RUN_RECORD_FILE, CURVES_FILE, "head_sweep.json", "head_sweep.md")
_OF_EVALUATION = (
    PREDICTIONS_FILE,
    CONFUSION_MATRIX_FILE,
    CONFIDENCE_FILE,
    REPORT_HTML,
    CLASS_TABLE_FILE,
    SMOKE_CLIP_FILE,
    SMOKE_QUESTION_FILE,
    METRICS_FILE,
)


def holds_training(output_dir: Path) -> bool:
    """Whether a training of this project began or ended in a folder."""
    markers = (UNFINISHED_FILE, TRAINING_RESULT_FILE, RUN_RECORD_FILE)
    return is_model_directory(output_dir) or any((output_dir / name).is_file() for name in markers)


def start_of(output_dir: Path) -> str | None:
    """The `adapter_name_or_path` of the training in a folder; null where it has none, or does not say."""
    for name in (RUN_RECORD_FILE, UNFINISHED_FILE):
        try:
            described = json.loads((output_dir / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        settings = described.get("settings", described) if isinstance(described, dict) else {}
        start = settings.get("adapter_name_or_path")
        return start if isinstance(start, str) else None
    return None


def foreign_weights(output_dir: Path) -> list[str]:
    """Names of weights in a folder that are no training's of this project, or an exported model's."""
    if holds_training(output_dir) and not (output_dir / EXPORT_RESULT_FILE).exists():
        return []
    return sorted(path.name for pattern in _OTHERS_WEIGHTS for path in output_dir.glob(pattern))


def remove_result(output_dir: Path) -> None:
    """Removes weights, descriptions and figures of the training that began or ended in a folder.

    What makes it a complete directory goes first: whoever reads it meanwhile finds it incomplete.
    """
    if not holds_training(output_dir):
        return
    found = [path for name in _names(output_dir) for path in output_dir.glob(name) if path.is_file()]
    found += [output_dir / name for name in _OF_TRANSFORMERS if _is_transformers(output_dir / name)]
    if found:
        log.info("removing what an earlier run left in %s: %s", output_dir, ", ".join(path.name for path in found))
    for path in dict.fromkeys(found):
        path.unlink()
    _remove_figures(output_dir / RESULTS_DIR)


def _names(output_dir: Path) -> Iterator[str]:
    # The stage's files are known from the settings, which are read before they are removed.
    of_stage = _stage_files(output_dir)
    yield TRAINING_RESULT_FILE
    yield from OWN_FILES
    yield from of_stage
    yield from (*_WEIGHTS, *_OF_TRAINER)


def _stage_files(output_dir: Path) -> tuple[str, ...]:
    try:
        stage = stage_of(read_model_config(output_dir / RUN_CONFIG_FILE))
    except (FileNotFoundError, ConfigError):  # cut off while it was written, or of a stage that is not here
        return ()
    return (*stage.files, *stage.training_files)


def _is_transformers(path: Path) -> bool:
    """Whether transformers wrote a file, and it is none of the user's with the same name."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(described, dict) and "transformers_version" in described


def _remove_figures(results_dir: Path) -> None:
    try:
        found = read_metrics(results_dir / METRICS_FILE)
    except (FileNotFoundError, ValueError):
        return
    if isinstance(found, LanguageMetrics):
        return
    num_heads = len(found.heads) if isinstance(found, TargetMetrics) else 0
    of_heads = [CONFUSION_OF_HEAD.format(number=number) for number in range(num_heads)]
    for name in (*_OF_EVALUATION, SCATTER_FILE, *of_heads):
        (results_dir / name).unlink(missing_ok=True)
    if not any(results_dir.iterdir()):
        results_dir.rmdir()
