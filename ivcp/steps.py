"""The steps one by one, in this process and in one folder: what `ivcp train FILE.yaml` and its siblings run.

Everything lies in `output_dir`: validated annotations and prepared clips in its folder `clips` (the shards in
`shards_uri`, where that is set), the adapter in itself, results in `evaluation`, the merged model in `export_dir` or
`model`. A step that needs an earlier one runs it first; what was validated and prepared is reused as long as nothing
that it depends on changed. A step's code is imported when it runs: torch and transformers take seconds, which
`ivcp validate` need not wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ivcp.checks.machine import check_room_for_clips
from ivcp.checks.run import check_preparation, check_training, check_validation
from ivcp.checks.settings import check_protocol
from ivcp.distributed.rank import is_owner, world_size
from ivcp.models.source import local_model, pinned
from ivcp.records import CLIPS_DIR, INDEX_FILE, RESULTS_DIR, PreparedIndex, Split
from ivcp.records.calibration import CALIBRATION_FILE
from ivcp.records.target_evaluation import TargetMetrics
from ivcp.records.thresholds import THRESHOLDS_FILE
from ivcp.records.validation import ValidationReport
from ivcp.settings import ConfigError, RunConfig
from ivcp.settings.places import is_remote_model
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import writable_folder
from ivcp.storage.owner import owned
from ivcp.validation.reuse import find_validated
from ivcp.validation.validate import validate_data

if TYPE_CHECKING:
    from ivcp.records.export import ExportResult
    from ivcp.records.language_evaluation import Measured
    from ivcp.training.result import TrainingResult

log = logging.getLogger(__name__)


def validate(config: RunConfig) -> ValidationReport:
    """Validates the data sets into `output_dir`/clips/validated."""
    config = pinned(config)
    check_validation(config)
    with _owned_output_dir(config):
        return validate_data(config, validated_dir(config))


def prepare(config: RunConfig) -> PreparedIndex:
    """Validates and prepares the data sets into `output_dir`/clips, or with its shards in `shards_uri`, where that is
    not done yet.
    """
    from ivcp.preparation.folds import of_fold
    from ivcp.preparation.prepare import prepare_clips

    config = pinned(config)
    check_preparation(config)
    with _owned_output_dir(config):
        report = find_validated(config, validated_dir(config)) or validate(config)
        shards_uri = config.cluster.shards_uri or str(_clips_dir(config))
        check_room_for_clips(report, config.data, shards_uri)
        index = prepare_clips(
            config,
            validated_dir=validated_dir(config),
            shards_uri=shards_uri,
            index_path=_clips_dir(config) / INDEX_FILE,
        )
        return of_fold(index, config)


@contextmanager
def _owned_output_dir(config: RunConfig) -> Iterator[None]:
    """Inside, no other command works in `output_dir`; of a distributed run, the first process owns it for all.

    Raises:
        InUseError: another one does.
        OSError: it cannot be written.
    """
    if not is_owner():
        yield
        return
    with owned(writable_folder(Path(config.train.output_dir)), advice="wait for its end, or set another output_dir"):
        yield


def train(config: RunConfig) -> TrainingResult:
    """Prepares the data sets and trains into `output_dir`; with `do_eval` or `do_predict`, evaluates as well.

    All processes of a distributed run call this; the first one prepares and evaluates.

    Raises:
        ConfigError: `do_eval` has only the clips that choose the model.
    """
    config = pinned(config)
    if is_owner():
        check_training(config, num_processes=world_size())
    from ivcp.distributed.processes import joined_processes, on_owner
    from ivcp.training.checkpoints.output_dir import check_output_dir
    from ivcp.training.seen import chooses_by_validation
    from ivcp.training.train import train_model

    output_dir, is_measured = Path(config.train.output_dir), _is_measured(config)

    def prepared() -> PreparedIndex:
        check_output_dir(config, output_dir)
        index = prepare(config)
        if is_measured and not index.num_clips.get("test") and chooses_by_validation(config):
            raise ConfigError(
                f"{is_measured}: there is no test split, and the validation split chooses the checkpoint, so that the "
                f"model cannot be measured on it too: set test_size or test_dataset, or leave {is_measured} out"
            )
        return index

    with _owned_output_dir(config):
        with joined_processes(config.train):
            index = on_owner(prepared)
            result = train_model(config, index=index, output_dir=output_dir)
        if is_measured and is_owner():
            evaluate(config)
    return result


def _is_measured(config: RunConfig) -> str | None:
    """The setting that asks for a measurement when the training ends; null where none does."""
    if config.train.do_eval:
        return "do_eval"
    return "do_predict" if config.generation.do_predict and stage_of(config).rows != "labels" else None


def evaluate(config: RunConfig) -> Measured:
    """Measures the adapter on the test split, or on the validation split where there is no test split.

    Raises:
        ModelFilesError: the adapter is not complete, or was trained on another base model.
        SeenSplitError: it has seen too much of the split.
        ConfigError: its stage cannot be measured as the settings ask.
    """
    from ivcp.evaluation.language.asked import check_measuring_here
    from ivcp.stages.directory import stage_of_directory

    config = pinned(config)
    check_protocol(config, has_classes=True)
    adapter = adapter_dir(config)
    if not adapter.is_dir():
        _check_adapter(config, adapter)  # before `output_dir` is made
    config = _with_given_splits(config)
    with _owned_output_dir(config):
        _check_adapter(config, adapter)
        check_measuring_here(stage_of_directory(adapter), config)
        return _measure(config, prepare(config))


def _check_adapter(config: RunConfig, adapter: Path) -> None:
    """Checks that an adapter is complete, and that the base model here is no other one: clips are prepared for that.

    Raises:
        ModelFilesError: it is not, or it was trained on another base model.
    """
    from ivcp.stages.directory import check_base, check_complete

    check_complete(adapter)
    base = config.model.model_name_or_path
    if base and (is_remote_model(base) or Path(base).is_dir()):
        check_base(adapter, config.model)


def _with_given_splits(config: RunConfig) -> RunConfig:
    """`config` without `resplit`: what measures a model takes the splits that there are."""
    return config.model_copy(update={"data": config.data.model_copy(update={"resplit": False})})


def _measure(config: RunConfig, index: PreparedIndex) -> Measured:
    """Measures the adapter; its calibration goes into `output_dir`, where that is the adapter."""
    from ivcp.evaluation.evaluate import evaluate_adapter

    split: Split = "test" if index.num_clips.get("test") else "val"
    adapter = adapter_dir(config)
    metrics = evaluate_adapter(config, adapter_dir=adapter, index=index, output_dir=results_dir(config), split=split)
    if metrics.calibration and adapter == Path(config.train.output_dir):  # any other may be somebody else's
        metrics.calibration.write(adapter / CALIBRATION_FILE)
    if isinstance(metrics, TargetMetrics) and metrics.thresholds and adapter == Path(config.train.output_dir):
        metrics.thresholds.write(adapter / THRESHOLDS_FILE)
    return metrics


def export(config: RunConfig) -> ExportResult:
    """Merges, measures and registers the adapter; without `dataset` it is merged only.

    Where there is no test split, and the adapter has seen the validation split, it is exported without figures.
    """
    from ivcp.export.exits.engines.check import check_engines
    from ivcp.export.exits.leaving import check_exits
    from ivcp.export.export import export_model, merge_only

    config = pinned(config)
    check_protocol(config, has_classes=True)
    export_dir = Path(config.export.export_dir or Path(config.train.output_dir) / "model")
    if not config.data.dataset:
        return merge_only(config, adapter_dir=adapter_dir(config), export_dir=export_dir)
    check_exits(config)
    check_engines(config.publishing.export_engines, config.model)
    config = _with_given_splits(config)
    with _owned_output_dir(config):
        _check_adapter(config, adapter_dir(config))
        index = prepare(config)
        metrics = _measure_if_unseen(config, index)
        return export_model(
            config,
            adapter_dir=adapter_dir(config),
            index=index,
            metrics=metrics,
            export_dir=export_dir,
        )


def _measure_if_unseen(config: RunConfig, index: PreparedIndex) -> Measured | None:
    from ivcp.evaluation.unseen import SeenSplitError

    reason = "there is neither a test nor a validation split"
    if index.num_clips.get("test"):
        return _measure(config, index)
    if index.num_clips.get("val"):
        try:
            return _measure(config, index)
        except SeenSplitError as error:
            reason = str(error)
    log.warning("the model is exported without figures: %s", reason)
    return None


def adapter_dir(config: RunConfig) -> Path:
    """The adapter that is evaluated and exported: `output_dir`, where a training began in it.

    `adapter_name_or_path` is where a training starts. It is taken where none has started from it in `output_dir`: a
    finished adapter that is merged, or a checkpoint that is measured. One that lies elsewhere is downloaded.
    """
    from ivcp.training.checkpoints.earlier_result import holds_training, start_of

    output_dir, named = Path(config.train.output_dir), config.method.adapter_name_or_path
    if named is None:
        return output_dir
    if not config.data.dataset:  # nothing to train on: a file that merges
        return Path(local_model(named))
    start = start_of(output_dir)
    if holds_training(output_dir) and start is not None and Path(start).resolve() == Path(named).resolve():
        log.info("taking %s, the training that started from adapter_name_or_path = %s", output_dir, named)
        return output_dir
    if holds_training(output_dir):
        log.warning(
            "taking adapter_name_or_path = %s, and not the training in %s, which %s", named, output_dir,
            f"started from {start}" if start else "started from no adapter",
        )  # fmt: skip
    return Path(local_model(named))


def validated_dir(config: RunConfig) -> Path:
    """Where validation writes its annotations and its report."""
    return _clips_dir(config) / "validated"


def results_dir(config: RunConfig) -> Path:
    """Where evaluation writes."""
    return Path(config.train.output_dir) / RESULTS_DIR


def _clips_dir(config: RunConfig) -> Path:
    return Path(config.train.output_dir) / CLIPS_DIR
