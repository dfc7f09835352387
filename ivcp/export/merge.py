"""Merges an adapter into its base model and proves that nothing changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ivcp.models.backbone import language_model_of
from ivcp.models.load import training_dtype
from ivcp.models.processor import PreparedClip
from ivcp.records.export import MergeCheck
from ivcp.stages.action_cls.files import LoadedClassifier, load_classifier, save_classifier_files

log = logging.getLogger(__name__)

MAX_LOGIT_DIFFERENCE = 1e-4


class MergeError(RuntimeError):
    """The merged model does not answer as base model and adapter do."""


def merge_adapter(
    adapter_dir: Path, export_dir: Path, *, clips: Sequence[PreparedClip], max_shard_gigabytes: float
) -> MergeCheck:
    """Writes the merged model of `adapter_dir` to `export_dir` and compares both on `clips`.

    The merge happens in float32; the weights are written in the precision of training. The token's row becomes a row
    of the embedding, so that transformers' `from_pretrained` reads a model that knows the token.

    Raises:
        MergeError: the logits differ by more than `MAX_LOGIT_DIFFERENCE`.
        ModelFilesError: `adapter_dir` is incomplete.
    """
    loaded = load_classifier(adapter_dir, dtype=torch.float32, quantize=False)
    if loaded.config.method.quantization_bit:
        log.warning(
            "the adapter was trained on %d-bit weights and is merged into the exact ones: evaluate the merged model",
            loaded.config.method.quantization_bit,
        )
    before = loaded.logits(clips)
    merged = merge_backbone(loaded)
    dtype = training_dtype(loaded.config)
    merged.to(dtype).save_pretrained(export_dir, max_shard_size=f"{max_shard_gigabytes}GB")
    save_classifier_files(
        export_dir,
        classifier=loaded.classifier,
        processor=loaded.processor,
        labels=loaded.labels,
        config=loaded.config,
        info=loaded.info,
    )
    return check_merged(export_dir, clips=clips, expected=before, dtype=dtype)


def merge_backbone(loaded: LoadedClassifier) -> Any:
    """The plain transformers model with LoRA merged and the token's row in its embedding."""
    from peft import PeftModel

    backbone = loaded.classifier.backbone
    model = backbone.merge_and_unload() if isinstance(backbone, PeftModel) else language_model_of(backbone)
    token_id = loaded.processor.action_token_id
    if token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(token_id + 1, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[token_id] = loaded.classifier.action_token_row
    return model


def check_merged(
    export_dir: Path, *, clips: Sequence[PreparedClip], expected: torch.Tensor, dtype: torch.dtype
) -> MergeCheck:
    """Reads the written model and compares its logits, (clips, classes), with `expected`.

    Raises:
        MergeError: they differ. A model written in bfloat16 is compared in float32 arithmetic of its rounded weights,
            and only a changed best class counts.
    """
    written = load_classifier(export_dir, dtype=torch.float32).logits(clips)
    difference = (written - expected).abs().max().item()
    is_same = (
        difference <= MAX_LOGIT_DIFFERENCE
        if dtype == torch.float32
        else bool((written.argmax(dim=1) == expected.argmax(dim=1)).all())
    )
    log.info("merged model against base model and adapter on %d clips: |Δ logit| ≤ %.2g", len(clips), difference)
    if not is_same:
        raise MergeError(
            f"{export_dir}: logits differ by {difference:.3g} from base model and adapter, expected at most "
            f"{MAX_LOGIT_DIFFERENCE:g}: do not serve it; keep the adapter and report its settings"
        )
    return MergeCheck(clips=len(clips), max_logit_difference=difference, dtype=str(dtype).removeprefix("torch."))
