"""Adapter and model directories of every stage: how they are written, checked and loaded.

Both hold what the stage adds to the backbone, the settings that say what the model means, the tokenizer, the processor,
what the clips are known by that the model has seen, and a calibration, once evaluation has fitted one. An adapter
directory adds peft's files, the weights that `freeze` trained, or full weights; a model directory holds merged weights.
Nothing falls back to random weights: an incomplete or untrained directory is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from ivcp.data.prepared.sample import Sample, Tokens
from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.distributed.weights import write_weights
from ivcp.inference.compute import Compute
from ivcp.inference.loop import Samples, run_batches
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
from ivcp.models.fingerprint import BaseWeights, base_weights
from ivcp.models.graphs.batches import BySize
from ivcp.models.graphs.run import Graph
from ivcp.models.load import model_without_weights, training_dtype, without_training_attention
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Processor, SampledVideo
from ivcp.records import (
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    RUN_CONFIG_FILE,
    UNFINISHED_FILE,
    Labels,
    Message,
    VersionedRecord,
)
from ivcp.records.calibration import CALIBRATION_FILE, Calibration
from ivcp.records.graph import GRAPH_FILE, GraphInfo
from ivcp.settings import ModelConfig, RunConfig, read_model_config, save_model_config
from ivcp.stages.protocol import Collate, Stage
from ivcp.stages.registry import stage_of

log = logging.getLogger(__name__)

MODEL_INFO_FILE = "model_info.json"
_EARLIER_INFO_FILE = "action_classifier.json"
"""Its name in directories that were written before files had a format version."""


OWN_FILES = (MODEL_INFO_FILE, _EARLIER_INFO_FILE, RUN_CONFIG_FILE, SEEN_CLIPS_FILE, CALIBRATION_FILE)
"""What a directory of any stage may have, beside the files of the stage, of the backbone and of the processor."""


class ModelInfo(VersionedRecord):
    """`model_info.json`: where the weights come from and how they are asked."""

    NEWEST_FORMAT: ClassVar[int] = 2

    format_version: int = 2
    trained_steps: int
    """Optimizer steps behind them."""
    prompt: tuple[Message, ...]
    """The conversation that the predictor uses when none is given."""
    data_fingerprint: str
    """Hash of the validated annotations."""
    prepared_fingerprint: str
    """Hash of everything the prepared samples depend on."""
    base: BaseWeights | None = None
    """The base model that it was trained on; null where an earlier version wrote the directory."""
    clip_seconds: float | None = None
    """What a training clip lasted, in the median; null where that is not known. A timeline's window lasts as long."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, with all that its inputs depend on."""

    stage: Stage
    module: BackboneModule
    processor: Processor
    info: ModelInfo
    directory: Path
    computes_as_trained: bool = True
    """Whether it computes in the precision of its training, as validation did; else in that of its weights."""
    calibration: Calibration | None = None
    """What its directory says of its confidence; null where evaluation has fitted none."""
    graph: Graph | None = None
    """What computes the logits in place of `module`, which has no weights then."""

    @property
    def config(self) -> RunConfig:
        """What the model means; settings of a machine have their defaults."""
        return self.stage.config

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation that is used when none is given."""
        return self.info.prompt

    def asking(self, prompt: str | None) -> LoadedModel:
        """The model with another prompt for the user's turn; null is its own.

        Raises:
            PromptError: `prompt` has `<video>` or a special token twice, or in the wrong order.
        """
        if prompt is None:
            return self
        system = [message for message in self.prompt if message.role == "system"]
        asked = self.stage.ask(prompt, system=system)
        return replace(self, info=self.info.model_copy(update={"prompt": asked}))

    @property
    def compute(self) -> Compute:
        """Where and in which precision it computes."""
        if self.graph:
            return Compute(torch.device("cpu"))
        device = next(self.module.parameters()).device
        return Compute.as_trained(self.config.train, device) if self.computes_as_trained else Compute(device)

    @property
    def precision(self) -> str:
        """What it computes in, in a few words: "float32", "bfloat16", "bfloat16, 4-bit weights"."""
        if self.graph:
            return self.graph.precision
        dtype = self.compute.autocast_dtype or next(self.module.parameters()).dtype
        bits = getattr(self.module.backbone.config, "quantization_config", None) and self.config.method.quantization_bit
        return str(dtype).removeprefix("torch.") + (f", {bits}-bit weights" if bits else "")

    @cached_property
    def labels(self) -> Labels:
        """The classes of its outputs.

        Raises:
            ModelFilesError: its outputs are no classes.
        """
        return self.stage.labels(self.module)

    @cached_property
    def seen(self) -> SeenClips:
        """The clips that it was trained on and chosen by."""
        return SeenClips.of_directory(self.directory)

    def tokenize(self, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """A conversation with its videos as the model reads it."""
        return self.stage.tokenize(self.processor, messages, videos)

    def predict(
        self, samples: Samples, batches: Iterable[Sequence[int]], *, num_workers: int = 0
    ) -> Iterator[tuple[torch.Tensor, Sequence[Sample]]]:
        """Of each batch: the module's logits, (batch, outputs), float32 on the CPU, and its samples without pixels."""
        return run_batches(
            samples,
            lambda batch: (self._logits(batch["inputs"]), batch["samples"]),
            collate=_KeepSamples(self._collate),
            batches=batches,
            compute=self.compute,
            num_workers=num_workers,
        )

    def _logits(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        if self.graph:
            return self.graph.logits(inputs)
        logits: torch.Tensor = self.module(**inputs).logits.float().cpu()
        return logits

    def outputs(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The logits of one batch, (len(samples), outputs), float32 on the CPU; without the cost of a loader."""
        with torch.no_grad(), self.compute.autocast():
            return self._logits(self.compute.to_device(self._collate(samples)))

    @cached_property
    def _collate(self) -> Collate:
        positions = RopePositions.of(language_model_of(self.module.backbone)) if self.graph else None
        collate = self.stage.collator(self.module, self.processor, positions=positions, training=False)
        return BySize(collate) if self.graph else collate

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The calibrated probabilities of logits, over the last dimension, float64 on the logits' device."""
        temperature = self.calibration.temperature if self.calibration else 1.0
        return (logits.double() / temperature).softmax(dim=-1)

    def is_unsure(self, confidence: float) -> bool | None:
        """Whether an answer with this calibrated probability is unsure; null where no threshold is known."""
        return self.calibration.is_unsure(confidence) if self.calibration else None


@dataclass(frozen=True)
class _KeepSamples:
    """Collates, and hands the samples on beside the batch, without what is large in them."""

    collate: Collate

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {"inputs": self.collate(samples), "samples": [sample.without_pixels() for sample in samples]}


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
) -> None:
    """Writes everything of a model, or everything but the backbone's weights.

    `seen` is what it was trained on and chosen by. `weights` are the module's by the names of its `state_dict`,
    gathered where its own are sharded. A calibration that lies there is of other weights: it is replaced, or removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CALIBRATION_FILE).unlink(missing_ok=True)
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
    (directory / _EARLIER_INFO_FILE).unlink(missing_ok=True)
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
    check_complete(directory)
    stage, info = stage_of(read_model_config(directory / RUN_CONFIG_FILE, machine=machine)), read_info(directory)
    if info.trained_steps == 0:
        raise ModelFilesError(f"{directory}: it was never trained (0 steps): train before you use it")
    model = without_training_attention(stage.config.model)
    processor = Processor.from_pretrained(
        directory,
        video=stage.config.video,
        special_tokens=stage.special_tokens,
        trust_remote_code=model.trust_remote_code,
    )
    if (directory / GRAPH_FILE).is_file():
        module = stage.restore(directory, model_without_weights(directory, model), processor).eval()
        tower = language_model_of(module.backbone).get_encoder(modality="video")
        graph = Graph(directory, GraphInfo.read(directory / GRAPH_FILE), tower=tower)
        return LoadedModel(stage, module, processor, info, directory, False, read_calibration(directory), graph)
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
    )


def load_weights(stage: Stage, module: BackboneModule, directory: Path) -> None:
    """Puts a directory's weights into a module of the same shape, whose own may be sharded: then all processes do this.

    Raises:
        ModelFilesError: the directory is incomplete, for other data, or for another base model.
    """
    check_complete(directory)
    check_base(directory, stage.config.model)
    try:
        write_weights(module, stage.read_weights(directory, module))
    except ValueError as error:
        raise ModelFilesError(f"{directory} does not fit this run's settings: {error}") from error
    load_backbone_weights(module.backbone, directory)


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
    if not missing:
        wanted = stage_of(read_model_config(directory / RUN_CONFIG_FILE)).files
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
    if CHECKPOINT_FOLDER.fullmatch(directory.name) and not (directory / CHECKPOINT_FILE).is_file():
        missing.append(CHECKPOINT_FILE)  # the run died while it wrote this
    if missing:
        raise ModelFilesError(
            f"{directory} is no complete adapter or model directory: {', '.join(missing)} missing; "
            "give a directory that training or export wrote"
        )
    damaged = [problem for path in sorted(directory.glob("*.safetensors")) if (problem := damage(path))]
    if damaged:
        raise ModelFilesError(f"{directory} is damaged: {'; '.join(damaged)}")


def is_model_directory(directory: Path) -> bool:
    """Whether training or export wrote it."""
    return any((directory / name).is_file() for name in (MODEL_INFO_FILE, _EARLIER_INFO_FILE))


def read_info(directory: Path) -> ModelInfo:
    """Where a directory's weights come from.

    Raises:
        FileNotFoundError: the directory does not say.
    """
    path, earlier = directory / MODEL_INFO_FILE, directory / _EARLIER_INFO_FILE
    return ModelInfo.read(earlier if earlier.is_file() and not path.is_file() else path)


def read_calibration(directory: Path) -> Calibration | None:
    """What a directory says of its model's confidence; null where evaluation has fitted nothing.

    Raises:
        ModelFilesError: the file is damaged, or of a newer version.
    """
    path = directory / CALIBRATION_FILE
    try:
        return Calibration.read(path) if path.is_file() else None
    except ValueError as error:
        raise ModelFilesError(f"{error}; without the file, confidences are not calibrated") from error
