"""Adapter and model directories of every stage: how they are written, checked and loaded.

Both hold what the stage adds to the backbone, the settings that say what the model means, the tokenizer, the processor,
what the clips are known by that the model has seen, and a calibration, once evaluation has fitted one. An adapter
directory adds peft's files, the weights that `freeze` trained, or full weights; a model directory holds merged weights.
Nothing falls back to random weights: an incomplete or untrained directory is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.distributed.weights import write_weights
from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.backbone_files import (
    BACKBONE_FILES,
    MODEL_CONFIG,
    ModelFilesError,
    load_backbone,
    load_backbone_weights,
    save_backbone,
    weights_below,
)
from ivcp.models.base_files import damage
from ivcp.models.fingerprint import base_weights
from ivcp.models.graphs.run import Graph
from ivcp.models.load import model_without_weights, training_dtype, without_training_attention
from ivcp.models.processor import Processor
from ivcp.records import (
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    RUN_CONFIG_FILE,
    UNFINISHED_FILE,
)
from ivcp.records.calibration import CALIBRATION_FILE, Calibration
from ivcp.records.graph import GRAPH_FILE, GraphInfo
from ivcp.records.record import VersionedRecord
from ivcp.records.thresholds import THRESHOLDS_FILE, Thresholds
from ivcp.settings import ModelConfig, read_model_config, save_model_config
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.model_info import (
    EARLIER_INFO_FILE,
    MODEL_INFO_FILE,
    ModelInfo,
    is_model_directory,
    read_info,
)
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of

log = logging.getLogger(__name__)
R = TypeVar("R", bound=VersionedRecord)


OWN_FILES = (MODEL_INFO_FILE, EARLIER_INFO_FILE, RUN_CONFIG_FILE, SEEN_CLIPS_FILE, CALIBRATION_FILE, THRESHOLDS_FILE)
"""What a directory of any stage may have, beside the files of the stage, of the backbone and of the processor."""


def save_directory(
    directory: Path,
    *,
    stage: Stage,
    module: BackboneModule,
    processor: Processor,
    info: ModelInfo,
    seen: SeenClips,
    weights: Mapping[str, torch.Tensor] | None = None,
    with_backbone: bool = True,
    calibration: Calibration | None = None,
    thresholds: Thresholds | None = None,
) -> None:
    """Writes everything of a model, or everything but the backbone's weights.

    `seen` is what it was trained on and chosen by. `weights` are the module's by the names of its `state_dict`,
    gathered where its own are sharded. A calibration and thresholds that lie there are of other weights: they are
    replaced, or removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in (CALIBRATION_FILE, THRESHOLDS_FILE):
        (directory / name).unlink(missing_ok=True)
    weights = module.state_dict() if weights is None else weights
    if with_backbone:
        save_backbone(
            module.backbone,
            directory,
            weights=weights_below("backbone", weights),
            only_trained=stage.config.method.finetuning_type == "freeze",
        )
    stage.save(directory, module, weights)
    processor.processor.save_pretrained(directory)
    save_model_config(stage.config, directory / RUN_CONFIG_FILE)
    info.write(directory / MODEL_INFO_FILE)
    seen.write(directory / SEEN_CLIPS_FILE)
    if calibration:
        calibration.write(directory / CALIBRATION_FILE)
    if thresholds:
        thresholds.write(directory / THRESHOLDS_FILE)
    (directory / EARLIER_INFO_FILE).unlink(missing_ok=True)
    for path in directory.glob("*.safetensors"):
        path.chmod((directory / MODEL_INFO_FILE).stat().st_mode)  # safetensors 0.8 hides them from all but their owner


def load_directory(
    directory: Path,
    *,
    machine: ModelConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantize: bool = True,
) -> LoadedModel:
    """Reads an adapter directory or a model directory.

    `machine` says what belongs to this machine and not to the model: attention (but for fa2, which is training's),
    trusted code, the cache of downloads; null has the defaults. `dtype` is the precision of the backbone and of what is
    computed, by default that of training for both. A base model that was quantized for training is quantized again,
    unless `quantize` is false. A directory with a graph (`ivcp.records.graph`) runs on the CPU in its runtime, whatever
    `device` and `dtype` say.

    Raises:
        ModelFilesError: files are missing or damaged, do not fit each other or the base model, or were never trained.
        RuntimeMissingError: the graph's runtime is not installed.
        ConfigError: the directory is of a stage that is not installed, or of a newer version.
    """
    if (directory / GRAPH_FILE).is_file():
        loaded = load_without_weights(directory, machine=machine)
        tower = language_model_of(loaded.module.backbone).get_encoder(modality="video")
        return replace(loaded, graph=Graph(directory, GraphInfo.read(directory / GRAPH_FILE), tower=tower))
    stage, info, processor = _read_trained(directory, machine)
    model = without_training_attention(stage.config.model)
    backbone = load_backbone(
        directory,
        model,
        dtype=dtype or training_dtype(stage.config),
        quantization=stage.config.method if quantize else None,
    )
    check_base(directory, model)
    module = stage.restore(directory, backbone, processor).eval().to(device)
    return LoadedModel(
        stage,
        module,
        processor,
        info,
        directory,
        computes_as_trained=dtype is None,
        calibration=read_calibration(directory),
        thresholds=read_thresholds(directory),
    )


def load_without_weights(directory: Path, *, machine: ModelConfig | None = None) -> LoadedModel:
    """The same around a backbone without weights, for a runtime or a server that computes in its place.

    Raises:
        ModelFilesError: files are missing or damaged, do not fit each other, or were never trained.
        ConfigError: the directory is of a stage that is not installed, or of a newer version.
    """
    stage, info, processor = _read_trained(directory, machine)
    backbone = model_without_weights(directory, without_training_attention(stage.config.model))
    module = stage.restore(directory, backbone, processor).eval()
    fitted = read_calibration(directory), read_thresholds(directory)
    return LoadedModel(stage, module, processor, info, directory, False, *fitted)


def _read_trained(directory: Path, machine: ModelConfig | None) -> tuple[Stage, ModelInfo, Processor]:
    """What a complete directory says of its model."""
    check_complete(directory)
    stage, info = stage_of(read_model_config(directory / RUN_CONFIG_FILE, machine=machine)), read_info(directory)
    if info.trained_steps == 0:
        raise ModelFilesError(f"{directory}: it was never trained (0 steps): train before you use it")
    processor = Processor.from_pretrained(
        directory,
        video=stage.config.video,
        special_tokens=stage.special_tokens,
        trust_remote_code=stage.config.model.trust_remote_code,
    )
    return stage, info, processor


def load_weights(stage: Stage, module: BackboneModule, directory: Path, *, starts: bool = False) -> None:
    """Puts a directory's weights into a module of the same shape, whose own may be sharded: then all processes do this.

    `starts` says that a training begins with them: what another stage's directory lacks, such as a value head, then
    stays as it is.

    Raises:
        ModelFilesError: the directory is incomplete, for other data, or for another base model.
    """
    check_complete(directory)
    check_base(directory, stage.config.model)
    own = (*stage.files, *stage.training_files)
    lacking = [name for name in own if not (directory / name).is_file()] if starts else []
    if lacking:
        earlier = stage_of_directory(directory).config.method.stage
        log.info("%s is of stage %s and has no %s: these begin anew", directory, earlier, ", ".join(lacking))
    try:
        write_weights(module, {} if lacking else stage.read_weights(directory, module))
    except ValueError as error:
        raise ModelFilesError(f"{directory} does not fit this run's settings: {error}") from error
    load_backbone_weights(module.backbone, directory)
    if not starts:
        stage.go_on(directory, module)


def stage_of_directory(directory: Path) -> Stage:
    """The stage that a directory's model was trained in, by its settings alone.

    Raises:
        ModelFilesError: the directory is not complete.
        ConfigError: the stage is not installed, or of a newer version.
    """
    check_complete(directory)
    return stage_of(read_model_config(directory / RUN_CONFIG_FILE))


def check_base(directory: Path, model: ModelConfig) -> None:
    """Checks that what a directory holds was trained on the base model that `model` names, which was loaded before.

    The action token's row, the decoder and an adapter mean nothing on other weights of the same shape.

    Raises:
        ModelFilesError: it was trained on another one.
    """
    if problem := other_base(directory, model):
        raise ModelFilesError(f"{problem}: set model_name_or_path to the base model of the training")


def other_base(directory: Path, model: ModelConfig) -> str | None:
    """How the base model of a directory's training differs from `model`; null where it does not, or is in it."""
    if (directory / MODEL_CONFIG).is_file():
        return None
    trained_on = read_info(directory).base
    if trained_on is None:
        log.warning(
            "%s does not say on which weights it was trained (an earlier version wrote it): taken to be those of %s",
            *(directory, model.required_name),
        )
        return None
    found = base_weights(model)
    if found.fingerprint == trained_on.fingerprint:
        return None
    return (
        f"{directory} was trained on the base model {trained_on.name} (weights {trained_on.fingerprint[:12]}), and "
        f"{found.name} has other weights ({found.fingerprint[:12]})"
    )


def check_complete(directory: Path) -> None:
    """Checks that all files of a model are there, and those of weights whole.

    Raises:
        ModelFilesError: some are not; names them.
    """
    if not directory.is_dir():
        raise ModelFilesError(f"{directory} does not exist: give the folder of a model, or one of its checkpoints")
    missing = [] if (directory / RUN_CONFIG_FILE).is_file() else [RUN_CONFIG_FILE]
    is_checkpoint = CHECKPOINT_FOLDER.fullmatch(directory.name) is not None
    if not missing:
        stage = stage_of(read_model_config(directory / RUN_CONFIG_FILE))
        wanted = (*stage.files, *stage.training_files) if is_checkpoint else stage.files
        missing = [name for name in wanted if not (directory / name).is_file()]
    if not is_model_directory(directory):
        missing.append(MODEL_INFO_FILE)
    if not any((directory / name).is_file() for name in BACKBONE_FILES):
        missing.append(" or ".join(BACKBONE_FILES))
    if (directory / UNFINISHED_FILE).is_file():
        raise ModelFilesError(
            f"the training in {directory} did not come to its end: run the same command again, or give one of its "
            "checkpoints"
        )
    if len(kinds := [name for name in BACKBONE_FILES if (directory / name).is_file()]) > 1:
        raise ModelFilesError(
            f"{directory} holds the weights of several trainings ({', '.join(kinds)}), one of which an earlier version "
            "left there: train again, with overwrite_output_dir: true or into another folder"
        )
    if is_checkpoint and not (directory / CHECKPOINT_FILE).is_file():
        missing.append(CHECKPOINT_FILE)  # the run died while it wrote this
    if missing:
        raise ModelFilesError(
            f"{directory} is no complete adapter or model directory: {', '.join(missing)} missing; "
            "give a directory that training or export wrote"
        )
    damaged = [problem for path in sorted(directory.glob("*.safetensors")) if (problem := damage(path))]
    if damaged:
        raise ModelFilesError(f"{directory} is damaged: {'; '.join(damaged)}")


def read_calibration(directory: Path) -> Calibration | None:
    """What a directory says of its model's confidence; null where evaluation has fitted nothing.

    Raises:
        ModelFilesError: the file is damaged, or of a newer version.
    """
    return _read_if_there(Calibration, directory / CALIBRATION_FILE, without="confidences are not calibrated")


def read_thresholds(directory: Path) -> Thresholds | None:
    """From which probability on the classes of a directory's model are shown; null where evaluation has fitted nothing.

    Raises:
        ModelFilesError: the file is damaged, or of a newer version.
    """
    return _read_if_there(Thresholds, directory / THRESHOLDS_FILE, without="every class is shown from 0.5 on")


def _read_if_there(record: type[R], path: Path, *, without: str) -> R | None:
    try:
        return record.read(path) if path.is_file() else None
    except ValueError as error:
        raise ModelFilesError(f"{error}; without the file, {without}") from error
