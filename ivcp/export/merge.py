"""Merges an adapter into its base model and proves that nothing changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ivcp.data.prepared.sample import Sample
from ivcp.inference.compute import Compute
from ivcp.inference.finite import NonFiniteError, check_finite_outputs, named, non_finite_names
from ivcp.models.backbone import language_model_of
from ivcp.models.load import training_dtype
from ivcp.records.export import MergeCheck
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory, save_directory
from ivcp.stages.loaded_model import LoadedModel

log = logging.getLogger(__name__)

MAX_LOGIT_DIFFERENCE = 1e-4
_ROUNDED = 0.05
"""How far numbers that are no classes may move where weights are rounded: so much of them, and so much beside."""


class MergeError(RuntimeError):
    """The merged model does not answer as base model and adapter do."""


def merge_adapter(
    adapter_dir: Path,
    export_dir: Path,
    *,
    samples: Sequence[Sample],
    machine: ModelConfig,
    max_shard_gigabytes: float,
    served_prompt: str | None = None,
    device: Literal["cpu", "auto"] = "cpu",
) -> MergeCheck:
    """Writes the merged model of `adapter_dir` to `export_dir` and compares both on `samples`, where there are any.

    `served_prompt` is what the merged model asks; null keeps the adapter's. `device` is `auto` for the GPU where there
    is one. The merge happens in float32; the weights
    are written in the precision of training. What a stage can put into the plain model goes there, so that
    transformers' `from_pretrained` reads a model that has it.

    Raises:
        MergeError: the logits differ by more than `MAX_LOGIT_DIFFERENCE`.
        NonFiniteError: logits or weights are not finite.
        ModelFilesError: `adapter_dir` is incomplete.
    """
    here = str(Compute.here().device) if device == "auto" else device
    loaded = load_directory(adapter_dir, machine=machine, device=here, dtype=torch.float32, quantize=False)
    loaded = loaded.asking(served_prompt)
    if loaded.config.method.quantization_bit:
        log.warning(
            "the adapter was trained on %d-bit weights and is merged into the exact ones",
            loaded.config.method.quantization_bit,
        )
    before = loaded.outputs(samples) if samples else None
    if before is not None:
        check_finite_outputs(before, lambda row: samples[row].sample_id, source=str(adapter_dir))
    merged = merge_backbone(loaded)
    _check_weights(merged, loaded)
    dtype = training_dtype(loaded.config)
    merged.to(dtype).save_pretrained(export_dir, max_shard_size=f"{max_shard_gigabytes}GB")
    save_beside_weights(export_dir, loaded)
    if before is None:
        return MergeCheck(clips=0, max_logit_difference=None, dtype=_name_of(dtype))
    check = check_merged(export_dir, samples=samples, machine=machine, expected=before, dtype=dtype, device=here)
    if not loaded.config.is_rounded:
        return check  # evaluation and predictor compute what was compared
    return _with_served(check, (adapter_dir, export_dir), samples=samples, machine=machine, prompt=served_prompt)


def save_beside_weights(directory: Path, model: LoadedModel) -> None:
    """Writes everything of a model directory but the backbone's weights."""
    save_directory(
        directory,
        stage=model.stage,
        module=model.module,
        processor=model.processor,
        info=model.info,
        seen=model.seen,
        with_backbone=False,
        calibration=model.calibration,
        thresholds=model.thresholds,
    )


def _with_served(
    check: MergeCheck,
    directories: tuple[Path, Path],
    *,
    samples: Sequence[Sample],
    machine: ModelConfig,
    prompt: str | None,
) -> MergeCheck:
    """The check with the distance between the adapter as evaluation computes it and the model as it is served."""
    device = str(Compute.here().device)
    evaluated, served = (
        load_directory(directory, machine=machine, device=device).asking(prompt) for directory in directories
    )
    before, after = evaluated.outputs(samples), served.outputs(samples)
    found = check.model_copy(
        update={
            "served_difference": (after - before).abs().max().item(),
            "served_changes": _num_changed(after, before, served),
        }
    )
    log.info("on %d clips: %s", found.clips, found.words)
    return found


def merge_backbone(loaded: LoadedModel) -> Any:
    """The plain transformers model with LoRA merged, and with what the stage folds into it."""
    from peft import PeftModel

    backbone = loaded.module.backbone
    model = backbone.merge_and_unload() if isinstance(backbone, PeftModel) else language_model_of(backbone)
    loaded.stage.fold(model, loaded.module, loaded.processor)
    return model


def _check_weights(merged: Any, loaded: LoadedModel) -> None:
    """Checks what is about to be written: without samples nothing else would show that it is NaN."""
    added = {name: value for name, value in loaded.module.named_parameters() if not name.startswith("backbone.")}
    wrong = non_finite_names(dict(merged.named_parameters()) | added)
    if wrong:
        raise NonFiniteError(
            f"{loaded.directory}: {len(wrong)} weights are not finite ({named(wrong)}): the training has diverged; "
            "nothing is exported; train again with a lower learning_rate"
        )


def check_merged(
    export_dir: Path,
    *,
    samples: Sequence[Sample],
    machine: ModelConfig,
    expected: torch.Tensor,
    dtype: torch.dtype,
    device: str = "cpu",
) -> MergeCheck:
    """Reads the written model and compares its logits, (samples, outputs), with `expected`.

    Raises:
        NonFiniteError: its logits are not finite.
        MergeError: they differ. A model written in bfloat16 is compared in float32 arithmetic of its rounded weights,
            and only a changed best class counts, or a number that moved further than rounding explains.
    """
    loaded = load_directory(export_dir, machine=machine, device=device, dtype=torch.float32)
    written = loaded.outputs(samples)
    check_finite_outputs(written, lambda row: samples[row].sample_id, source=str(export_dir))
    difference = (written - expected).abs().max().item()
    log.info("merged model against base model and adapter on %d clips: |Δ logit| ≤ %.2g", len(samples), difference)
    if dtype != torch.float32 and (changed := _num_changed(written, expected, loaded)):
        raise MergeError(
            f"{export_dir}: of {len(samples)} clips {changed} are answered otherwise than by base model and adapter, "
            f"logits differ by up to {difference:.3g}: what the adapter learned is smaller than what {_name_of(dtype)} "
            "keeps of the weights it is added to; do not serve it: keep the adapter, or train with bf16: false and "
            "fp16: false, so that merged weights are written in float32"
        )
    if dtype == torch.float32 and difference > MAX_LOGIT_DIFFERENCE:
        raise MergeError(
            f"{export_dir}: logits differ by {difference:.3g} from base model and adapter, expected at most "
            f"{MAX_LOGIT_DIFFERENCE:g}: do not serve it; keep the adapter and report its settings"
        )
    return MergeCheck(clips=len(samples), max_logit_difference=difference, dtype=_name_of(dtype))


def _num_changed(found: torch.Tensor, expected: torch.Tensor, model: LoadedModel) -> int:
    """Clips with another class; of a model that does not tell one class, those whose numbers are other ones but for
    rounding."""
    if model.stage.rows == "labels" and model.labels.kind == "class":
        return int((found.argmax(dim=1) != expected.argmax(dim=1)).sum())
    steady = model.stage.steady_outputs
    found, expected = found[:, steady], expected[:, steady]
    return int(((found - expected).abs() > _ROUNDED * (1 + expected.abs())).any(dim=1).sum())


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
