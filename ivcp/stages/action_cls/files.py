"""The adapter directory and the model directory: what is in them, and how they are written and read.

Both hold the decoder, the action token's row, the labels, the run configuration, the tokenizer and the
processor. An adapter directory adds peft's files, the weights that `freeze` trained, or full weights; a model
directory holds merged weights.
Nothing falls back to random weights: an incomplete or untrained directory is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ivcp.distributed.weights import loading_whole, write_weights
from ivcp.models.backbone import language_model_of
from ivcp.models.load import load_base_model, training_dtype
from ivcp.models.processor import ClipProcessor, PreparedClip
from ivcp.records import (
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    LABELS_FILE,
    RUN_CONFIG_FILE,
    Labels,
    Message,
    Record,
)
from ivcp.settings import MethodConfig, RunConfig, read_saved_config, save_config
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier

DECODER_FILE = "action_decoder.safetensors"
TOKEN_ROW_FILE = "action_token.safetensors"
CLASSIFIER_FILE = "action_classifier.json"
ADAPTER_CONFIG = "adapter_config.json"
TRAINED_WEIGHTS = "trained_weights.safetensors"
"""The backbone's weights that training changed, by name; the others are the base model's."""
MODEL_CONFIG = "config.json"
_BACKBONE_FILES = (ADAPTER_CONFIG, TRAINED_WEIGHTS, MODEL_CONFIG)
"""One of these says how the backbone's weights are stored."""
_REQUIRED = (DECODER_FILE, TOKEN_ROW_FILE, CLASSIFIER_FILE, LABELS_FILE, RUN_CONFIG_FILE)


class ModelFilesError(ValueError):
    """A directory that is no complete, trained classifier; the message says what is missing."""


class ClassifierInfo(Record):
    """`action_classifier.json`: where the weights come from and how they are asked."""

    trained_steps: int
    """Optimizer steps that the decoder has seen."""
    prompt: tuple[Message, ...]
    """The conversation that the predictor uses when none is given."""
    data_fingerprint: str
    """Hash of the validated annotations."""
    prepared_fingerprint: str
    """Hash of everything the prepared clips depend on."""


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier ready to predict, with all that its inputs depend on."""

    classifier: ActionClassifier
    processor: ClipProcessor
    labels: Labels
    config: RunConfig
    info: ClassifierInfo
    directory: Path

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation that is used when none is given."""
        return self.info.prompt

    @torch.inference_mode()
    def logits(self, clips: Sequence[PreparedClip]) -> torch.Tensor:
        """Class logits of one batch, (len(clips), num_classes), float32 on the CPU."""
        batch = self.processor.collate(clips)
        device = self.classifier.action_token_row.device
        inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
        logits: torch.Tensor = self.classifier(**inputs).logits
        return logits.float().cpu()


def save_classifier_files(
    directory: Path,
    *,
    classifier: ActionClassifier,
    processor: ClipProcessor,
    labels: Labels,
    config: RunConfig,
    info: ClassifierInfo,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes everything of a classifier but the backbone's weights.

    `weights` are the classifier's by the names of its `state_dict`, where its own are spread over processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = classifier.state_dict() if weights is None else weights
    save_decoder(classifier.decoder, directory / DECODER_FILE, labels=labels, weights=weights_below("decoder", weights))
    save_file({"row": weights["action_token_row"].detach().cpu().contiguous()}, directory / TOKEN_ROW_FILE)
    processor.processor.save_pretrained(directory)
    labels.write(directory / LABELS_FILE)
    save_config(config, directory / RUN_CONFIG_FILE)
    info.write(directory / CLASSIFIER_FILE)
    for path in directory.glob("*.safetensors"):
        path.chmod((directory / CLASSIFIER_FILE).stat().st_mode)  # safetensors 0.8 hides them from all but their owner


def load_classifier(
    directory: Path,
    *,
    device: str = "cpu",
    base_model: str | None = None,
    dtype: torch.dtype | None = None,
    quantize: bool = True,
) -> LoadedClassifier:
    """Reads an adapter directory or a model directory.

    `base_model` replaces the base model that an adapter was trained on, where that lies elsewhere now; `dtype` is
    the precision of the backbone, by default that of training. A base model that was quantized for training is
    quantized again, unless `quantize` is false.

    Raises:
        ModelFilesError: files are missing, do not fit each other, or were never trained.
    """
    check_complete(directory)
    config = read_saved_config(directory / RUN_CONFIG_FILE)
    info = ClassifierInfo.read(directory / CLASSIFIER_FILE)
    if info.trained_steps == 0:
        raise ModelFilesError(f"{directory}: the decoder was never trained (0 steps): train before you use it")
    labels = Labels.read(directory / LABELS_FILE)
    processor = ClipProcessor.from_pretrained(
        directory,
        video=config.video,
        action_token=config.action_cls.action_token,
        trust_remote_code=config.model.trust_remote_code,
    )
    decoder = load_decoder(directory / DECODER_FILE, labels=labels)
    quantization = config.method if quantize else None
    backbone = _load_backbone(directory, config, base_model, dtype or training_dtype(config), quantization)
    classifier = ActionClassifier(backbone, decoder, action_token_id=processor.action_token_id)
    load_token_row(classifier, directory)
    return LoadedClassifier(
        classifier=classifier.eval().to(device),
        processor=processor,
        labels=labels,
        config=config,
        info=info,
        directory=directory,
    )


def check_complete(directory: Path) -> None:
    """Checks that all files of a classifier are there.

    Raises:
        ModelFilesError: some are not; names them.
    """
    missing = [name for name in _REQUIRED if not (directory / name).is_file()]
    if not any((directory / name).is_file() for name in _BACKBONE_FILES):
        missing.append(" or ".join(_BACKBONE_FILES))
    if CHECKPOINT_FOLDER.fullmatch(directory.name) and not (directory / CHECKPOINT_FILE).is_file():
        missing.append(CHECKPOINT_FILE)  # the run died while it wrote this
    if missing:
        raise ModelFilesError(
            f"{directory} is no complete adapter or model directory: {', '.join(missing)} missing; "
            "give a directory that training or export wrote"
        )


def weights_below(module: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a `state_dict` that belong to a child module, by its own names."""
    prefix = f"{module}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def save_decoder(
    decoder: ActionDecoder, path: Path, *, labels: Labels, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Writes the decoder's weights, its own or those given, with its shape and its labels as metadata."""
    weights = decoder.state_dict() if weights is None else weights
    metadata = {
        "shape": decoder.shape.model_dump_json(),
        "label_names": json.dumps(labels.label_names, ensure_ascii=False),
    }
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path, metadata=metadata)


def load_decoder(path: Path, *, labels: Labels, dropout: float = 0.0) -> ActionDecoder:
    """Reads a decoder, as `action_decoder_path` names it: a file, or a directory that holds one.

    Raises:
        ModelFilesError: there is none, or it was trained for other labels.
    """
    file = path / DECODER_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelFilesError(f"no action decoder at {file}: expected a file that training wrote")
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    if not {"shape", "label_names"} <= set(metadata):
        raise ModelFilesError(f"{file} holds no description of its decoder: it was not written by this project")
    names = tuple(json.loads(metadata["label_names"]))
    if names != labels.label_names:
        raise ModelFilesError(
            f"{file} was trained for {len(names)} labels ({', '.join(names[:5])}, …), the data has "
            f"{labels.num_classes} ({', '.join(labels.label_names[:5])}, …): labels and their order must agree"
        )
    decoder = ActionDecoder(DecoderShape.model_validate_json(metadata["shape"]), dropout=dropout)
    decoder.load_state_dict(weights)
    return decoder


def read_token_row(directory: Path) -> torch.Tensor:
    """The saved row of the action token, (hidden_size,)."""
    with safe_open(directory / TOKEN_ROW_FILE, framework="pt") as opened:
        row: torch.Tensor = opened.get_tensor("row")
    return row


def load_token_row(classifier: ActionClassifier, directory: Path) -> None:
    """Puts the saved row of the action token into `classifier`."""
    row = read_token_row(directory)
    if row.shape != classifier.action_token_row.shape:
        raise ModelFilesError(
            f"{directory / TOKEN_ROW_FILE} has {row.numel()} values, the model's embedding has "
            f"{classifier.action_token_row.numel()}: adapter and base model do not belong together"
        )
    with torch.no_grad():
        classifier.action_token_row.copy_(row)


def save_backbone(
    classifier: ActionClassifier,
    directory: Path,
    *,
    only_trained: bool = False,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes the backbone's weights: the adapter's, or all; `only_trained` writes what training changes.

    `weights` are the backbone's by the names of its `state_dict`, where its own are spread over processes.
    """
    model = language_model_of(classifier.backbone)
    weights = classifier.backbone.state_dict() if weights is None else weights
    if model is not classifier.backbone:
        classifier.backbone.save_pretrained(directory, state_dict=dict(weights), save_embedding_layers=False)
    elif only_trained:
        trained = [name for name, value in model.named_parameters() if value.requires_grad]
        save_file({name: weights[name].detach().cpu().contiguous() for name in trained}, directory / TRAINED_WEIGHTS)
    else:
        model.save_pretrained(directory, state_dict=dict(weights))


def load_backbone(backbone: Any, directory: Path) -> None:
    """Puts the weights that `save_backbone` wrote into a backbone of the same kind, also one spread over processes.

    Raises:
        ModelFilesError: they belong to another model, or to another `finetuning_type`.
    """
    model = language_model_of(backbone)
    is_adapter = (directory / ADAPTER_CONFIG).is_file()
    if is_adapter != (model is not backbone):
        kind = "a LoRA adapter" if is_adapter else "full weights"
        raise ModelFilesError(f"{directory} holds {kind}, which do not fit the finetuning_type of this run")
    if is_adapter:
        weights = _adapter_weights(backbone, directory)
    elif (directory / TRAINED_WEIGHTS).is_file():
        weights = load_file(directory / TRAINED_WEIGHTS)
    else:
        with loading_whole():
            weights = type(model).from_pretrained(directory, dtype=model.dtype).state_dict()
    try:
        write_weights(backbone, weights)
    except ValueError as error:
        raise ModelFilesError(f"{directory}: adapter and base model do not belong together: {error}") from error


def _adapter_weights(backbone: Any, directory: Path) -> dict[str, torch.Tensor]:
    """peft's weights of a directory by the names that they have in the peft model."""
    from peft import get_peft_model_state_dict, load_peft_weights

    names = [name for name, _ in backbone.named_parameters()]
    # peft renames what it saves: let it rename numbers, and look where they went.
    numbers = {name: torch.tensor(number) for number, name in enumerate(names)}
    renamed = get_peft_model_state_dict(backbone, state_dict=numbers, save_embedding_layers=False)
    name_of = {saved: names[int(number)] for saved, number in renamed.items()}
    weights = load_peft_weights(str(directory), device="cpu")
    if weights.keys() != name_of.keys():
        odd = sorted(weights.keys() ^ name_of.keys())
        raise ModelFilesError(
            f"{directory} does not fit this run's LoRA settings: {len(odd)} weights are in one only, as {odd[0]}"
        )
    return {name_of[name]: value for name, value in weights.items()}


def _load_backbone(
    directory: Path,
    config: RunConfig,
    base_model: str | None,
    dtype: torch.dtype,
    quantization: MethodConfig | None,
) -> Any:
    if (directory / MODEL_CONFIG).is_file():
        return load_base_model(directory, settings=config.model, dtype=dtype)
    base_name = base_model or config.model.model_name_or_path
    if base_name is None:
        raise ModelFilesError(f"{directory / RUN_CONFIG_FILE} names no model_name_or_path: give the base model")
    base = load_base_model(base_name, settings=config.model, dtype=dtype, quantization=quantization)
    if (directory / TRAINED_WEIGHTS).is_file():
        load_backbone(base, directory)
        return base
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(directory)).eval()
