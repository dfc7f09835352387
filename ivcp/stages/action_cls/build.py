"""Builds the classifier that a run starts from, and the one of a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.models.adapters import prepare_backbone
from ivcp.models.backbone_files import ModelFilesError
from ivcp.models.load import load_base_model, training_dtype
from ivcp.models.processor import Processor
from ivcp.records import Labels, PreparedIndex
from ivcp.records.problem_types import TargetScale
from ivcp.settings import ActionClsConfig, RunConfig
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.files import load_decoder, read_token_row
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.action_cls.target_losses import training_loss


def build_classifier(config: RunConfig, index: PreparedIndex, processor: Processor) -> ActionClassifier:
    """The base model with its adapter, a new or earlier decoder, and the token's row.

    Raises:
        FileNotFoundError: the base model does not exist.
        ModelFilesError: `action_decoder_path` does not fit the labels or the settings.
        UnsupportedMethodError: the model cannot be trained as asked.
    """
    action = config.action_cls
    model = load_base_model(
        config.model.required_name, settings=config.model, dtype=training_dtype(config), quantization=config.method
    )
    labels = with_scale(index)
    classifier = ActionClassifier(
        prepare_backbone(model, config.method),
        build_decoder(action, hidden_size=model.config.get_text_config().hidden_size, labels=labels),
        labels=labels,
        action_token_id=processor.token_id(action.action_token),
        action_token_is_new=action.action_token in processor.new_tokens,
        training_loss=training_loss(labels, config.loss, label_counts=index.label_counts["train"]),
        token_loss_weight=action.action_cls_token_loss_weight,
    )
    if action.action_token_lr_scale == 0:
        classifier.action_token_row.requires_grad_(False)  # or gradients would pass through a frozen backbone for it
    return classifier


def restore_classifier(directory: Path, backbone: Any, *, labels: Labels, token_id: int) -> ActionClassifier:
    """The classifier of a directory around a backbone that has its weights already.

    Raises:
        ModelFilesError: the decoder or the token's row does not belong to it.
    """
    decoder = load_decoder(directory, labels=labels)
    classifier = ActionClassifier(backbone, decoder, labels=labels, action_token_id=token_id)
    classifier.set_row(read_token_row(directory), source=str(directory))
    return classifier


def with_scale(index: PreparedIndex) -> Labels:
    """What the prepared clips are labelled with; of a number with the mean and the spread of the training clips.

    Raises:
        ModelFilesError: all training clips have the same number.
    """
    labels = index.classes
    if labels.kind != "value":
        return labels
    values = PreparedSamples(index, "train").column("value")
    mean, std = float(values.mean()), float(values.std())
    if values.min() == values.max():  # their standard deviation may be 1e-17
        raise ModelFilesError(f"all {len(values)} training clips have {mean:g} in {labels.label_names[0]}: there is "
                              "nothing to learn; validation and test may have to give some to it")  # fmt: skip
    return labels.model_copy(update={"scale": TargetScale(mean=mean, std=std)})


def build_decoder(settings: ActionClsConfig, *, hidden_size: int, labels: Labels) -> ActionDecoder:
    """A new decoder, or the one of `action_decoder_path`.

    Raises:
        ModelFilesError: that one has another shape or other labels.
    """
    wanted = DecoderShape.from_settings(
        settings,
        hidden_size=hidden_size,
        num_classes=labels.num_classes,
        head_classes=tuple(head.num_classes for head in labels.heads),
    )
    if not settings.action_decoder_path:
        return ActionDecoder(wanted, dropout=settings.action_decoder_dropout)
    decoder = load_decoder(Path(settings.action_decoder_path), labels=labels, dropout=settings.action_decoder_dropout)
    differing = {
        name: (found, getattr(wanted, name)) for name, found in decoder.shape if found != getattr(wanted, name)
    }
    if differing:
        named = ", ".join(f"{name} {found} instead of {asked}" for name, (found, asked) in differing.items())
        raise ModelFilesError(
            f"action_decoder_path: {settings.action_decoder_path} has {named}: set the action_decoder_… settings as "
            "they were when it was trained, and take a base model of the same size"
        )
    return decoder
