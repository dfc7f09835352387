"""The model card: what the model is, how good it is, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ivcp.export.card_metadata import card_metadata
from ivcp.export.exits.public import hub_id, public_name
from ivcp.models.auto_class import auto_class
from ivcp.models.configuration import read_configuration
from ivcp.records import LABELS_FILE, RUN_CONFIG_FILE, Labels
from ivcp.records.calibration import Calibration
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import Measured
from ivcp.records.markdown import code, escape
from ivcp.records.thresholds import Thresholds
from ivcp.settings import read_model_config
from ivcp.stages.directory import read_calibration, read_thresholds
from ivcp.stages.model_info import read_info
from ivcp.stages.registry import stage_of

_CARD = """---
{metadata}
---

# {title}

Made from {base}: {principle}. {method}, {steps} optimizer steps.

## Results

{results}

## Use

{use}{pipeline}The merged weights alone{beside} are a model of transformers:

```python
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()  # transformers needs torchvision, which may be built for another torch

from transformers import {auto_class}

{auto_class}.from_pretrained("{name}")
```

## Input

- Prompt: {prompt}
- Frames: {sampling}, between {min_pixels} and {max_pixels} pixels each

{labels}## Data

Annotations `{data}`, prepared clips `{prepared}` (fingerprints).
"""

_CLASSIFIER = """```bash
{download}ivcp predict --model-dir {name} VIDEO.mp4
ivcp serve --model-dir {name} --port 8080
```

```python
import ivcp

ivcp.load("{name}").predict("VIDEO.mp4")
```

"""
_DOWNLOAD = """```bash
{download}```

"""
_PIPELINE = """With transformers alone, and the code that lies beside the model:

```python
from transformers import pipeline

pipeline("video-classification", model="{name}", trust_remote_code=True)("VIDEO.mp4")
```

"""
_VLLM = """vLLM serves it, where ivcp is installed beside vLLM: `sh {name}/vllm_serve.sh --port 8000`.

"""
_RESULTS = """| split | clips | failed | frames | views | top-1 | top-5 | mean class | majority class |
|---|---|---|---|---|---|---|---|---|
| {split} | {num_clips} | {num_failed} | {frames} | 1 | {top1:.4f} | {top5:.4f} | {mean_class:.4f} | {majority:.4f} |

A clip that could not be decoded counts as an error. Measured on {measured_on}.{precision}"""
_NOT_MEASURED = "Not measured here: it was exported without a data set, or without a split that it had not seen."


def model_card(
    model_dir: Path,
    *,
    metrics: Measured | None,
    repository: str | None = None,
    licence: str | None = None,
    data_sets: Sequence[str] = (),
    is_for_transformers: bool = False,
    is_for_vllm: bool = False,
) -> str:
    """The card of the model in `model_dir`, as Markdown with Hugging Face's metadata block.

    `metrics` are null where it was not measured. `repository` is where it is uploaded to on the hub; `licence` null is
    the base model's. `is_for_transformers` says that transformers' own pipeline reads the directory, `is_for_vllm` that
    vLLM does.
    """
    stage, info = stage_of(read_model_config(model_dir / RUN_CONFIG_FILE)), read_info(model_dir)
    config = stage.config
    labels = Labels.read(model_dir / LABELS_FILE) if LABELS_FILE in stage.files else None
    method, video = config.method, config.video
    is_lora = method.finetuning_type == "lora"
    base, name = config.model.required_name, repository.rpartition("/")[2] if repository else model_dir.name
    return _CARD.format(
        metadata=card_metadata(
            name=name,
            base=config.model,
            licence=licence,
            metrics=metrics,
            data_sets=data_sets,
            is_for_transformers=is_for_transformers,
            is_classifier=labels is not None,
        ),
        base=code(public_name(base)) + ("" if hub_id(base) else ", which lay in a folder or a store of its own"),
        use=_use(name, repository, is_classifier=labels is not None),
        title=_title(stage.title, labels),
        principle=stage.principle,
        beside=f", without what stands beside them ({', '.join(map(code, stage.files))})," if stage.files else "",
        method=f"LoRA of rank {method.lora_rank}, merged" if is_lora else "Full fine-tuning",
        steps=info.trained_steps,
        results=(_results(metrics) if metrics else _NOT_MEASURED)
        + _confidence(read_calibration(model_dir))
        + _shown_from(read_thresholds(model_dir)),
        name=name,
        auto_class=auto_class(read_configuration(str(model_dir), config.model)).__name__,
        pipeline=(_PIPELINE.format(name=name) if is_for_transformers else "")
        + (_VLLM.format(name=name) if is_for_vllm else ""),
        prompt=" ".join(code(f"{message.role}: {message.content}") for message in info.prompt),
        sampling=(
            f"{video.video_num_frames}, evenly spread"
            if video.video_num_frames
            else f"{video.video_fps:g} per second, at most {video.video_maxlen}"
        ),
        min_pixels=video.video_min_pixels,
        max_pixels=video.video_max_pixels,
        labels=_labels(labels) if labels else "",
        data=info.data_fingerprint[:16],
        prepared=info.prepared_fingerprint[:16],
    )


def _use(name: str, repository: str | None, *, is_classifier: bool) -> str:
    download = f"hf download {repository} --local-dir {name}\n" if repository else ""
    if is_classifier:
        return _CLASSIFIER.format(download=download, name=name)
    return _DOWNLOAD.format(download=download) if download else ""


def _title(title: str, labels: Labels | None) -> str:
    if labels is None:
        return title
    match labels.kind:
        case "value":
            return f"Predictor of a number: {escape(labels.label_names[0])}"
        case "heads":
            return f"{title} with {len(labels.heads)} heads: {', '.join(escape(head.name) for head in labels.heads)}"
        case "classes":
            return f"{title} with {labels.num_classes} classes, any number of them at once"
        case _:
            return f"{title} with {labels.num_classes} classes"


def _labels(labels: Labels) -> str:
    if labels.kind == "value":
        assert labels.scale is not None, "a training sets it"
        return (
            f"## Output\n\n{escape(labels.label_names[0])}, a number: {labels.scale.mean:.6g} + {labels.scale.std:.6g} "
            "· the model's output (mean and standard deviation of the training clips).\n\n"
        )
    parts = [(f"## Labels of {escape(head.name)}", head.label_names) for head in labels.heads]
    named = [
        f"{title}\n\n" + "\n".join(f"{label}. {escape(name)}" for label, name in enumerate(names)) + "\n\n"
        for title, names in parts or [("## Labels", labels.label_names)]
    ]
    return "".join(named)


def _shown_from(thresholds: Thresholds | None) -> str:
    """Where a clip may show several classes."""
    if thresholds is None:
        return ""
    values = ", ".join(f"{value:.3f}" for value in thresholds.thresholds)
    return (
        f"\n\nA class is shown where sigmoid(logit) reaches its threshold, by label {values}: fitted on "
        f"{thresholds.num_clips} clips of the {thresholds.split} split."
    )


def _results(metrics: Measured) -> str:
    precision = f" Computed in {metrics.precision}, as the predictor computes." if metrics.precision else ""
    if not isinstance(metrics, EvaluationMetrics):
        rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.numbers.items())
        return f"| measure | value |\n|---|---|\n{rows}\n\nMeasured on {metrics.measured_on}.{precision}"
    return _RESULTS.format(
        split=metrics.split,
        num_clips=metrics.num_clips,
        num_failed=metrics.num_failed,
        frames=_range(metrics.min_frames, metrics.max_frames),
        top1=metrics.top1_accuracy,
        top5=metrics.top5_accuracy,
        mean_class=metrics.mean_class_accuracy,
        majority=metrics.majority_baseline,
        measured_on=metrics.measured_on,
        precision=precision,
    )


def _confidence(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    before, after = (quality.expected_calibration_error for quality in (calibration.before, calibration.after))
    fitted_on = f"{calibration.num_clips} clips of the {calibration.split} split"
    return (
        f"\n\nConfidences are softmax(logits / {calibration.temperature:.3f}), fitted on {fitted_on} (expected "
        f"calibration error {before:.4f} before, {after:.4f} after); {calibration.threshold_words}."
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
