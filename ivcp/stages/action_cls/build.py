"""Builds the classifier that a run starts from."""

from __future__ import annotations

from pathlib import Path

from ivcp.models.adapters import prepare_backbone
from ivcp.models.load import load_base_model, training_dtype
from ivcp.models.processor import ClipProcessor
from ivcp.records import Labels, PreparedIndex
from ivcp.settings import ActionClsConfig, RunConfig
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.files import ModelFilesError, load_decoder
from ivcp.stages.action_cls.losses import ClassificationLoss
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.training.trainer import load_weights


def build_classifier(config: RunConfig, *, index: PreparedIndex, processor: ClipProcessor) -> ActionClassifier:
    """The classifier at the start of training: the base model with its adapter, a new or earlier decoder.

    Raises:
        FileNotFoundError: the base model does not exist.
        ModelFilesError: `action_decoder_path` or `adapter_name_or_path` does not fit the labels or the settings.
        UnsupportedMethodError: the model cannot be trained as asked.
    """
    method, action = config.method, config.action_cls
    model = load_base_model(
        base_model_name(config), settings=config.model, dtype=training_dtype(config), quantization=method
    )
    classifier = ActionClassifier(
        prepare_backbone(model, method),
        build_decoder(action, hidden_size=model.config.get_text_config().hidden_size, labels=index.labels),
        action_token_id=processor.action_token_id,
        action_token_is_new=processor.action_token_is_new,
        training_loss=ClassificationLoss.from_settings(config.loss, label_counts=index.label_counts["train"]),
        token_loss_weight=action.action_cls_token_loss_weight,
    )
    if action.action_token_lr_scale == 0:
        classifier.action_token_row.requires_grad_(False)  # or gradients would pass through a frozen backbone for it
    if method.adapter_name_or_path:
        load_weights(classifier, Path(method.adapter_name_or_path), labels=index.labels)
    return classifier


def build_decoder(settings: ActionClsConfig, *, hidden_size: int, labels: Labels) -> ActionDecoder:
    """A new decoder, or the one of `action_decoder_path`.

    Raises:
        ModelFilesError: that one has another shape or other labels.
    """
    wanted = DecoderShape.from_settings(settings, hidden_size=hidden_size, num_classes=labels.num_classes)
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


def base_model_name(config: RunConfig) -> str:
    """Path or hub id of the base model.

    Raises:
        ValueError: it is not set.
    """
    if config.model.model_name_or_path is None:
        raise ValueError("model_name_or_path is not set: give the path of a model directory or a hub id")
    return config.model.model_name_or_path
