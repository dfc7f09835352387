"""What the settings say of a clip's label: one class, several at once, one of each head, or a number.

The module is light: validation and preparation ask it as well.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ivcp.data.prepared.sample import Column
from ivcp.records import Clip
from ivcp.records.problem_types import MULTI_LABEL, REGRESSION, TargetKind
from ivcp.settings import ActionClsConfig, ConfigError, RunConfig

LABEL = Column("label", pa.int32())
"""The class of each sample."""
LABELS = Column("labels", pa.list_(pa.int32()))
"""Its classes, where it may have several, or that of each head."""
VALUE = Column("value", pa.float64())
"""A number in the place of a class."""
TARGET_SETTINGS = ("problem_type", "action_heads")
_IDLE: dict[str, tuple[TargetKind, ...]] = {
    "label_smoothing_factor": ("value",),
    "action_loss": ("value",),
    "focal_gamma": ("value",),
    "class_weights": ("value", "classes"),
    "class_weight_beta": ("value", "classes"),
    "balanced_sampling": ("value", "classes", "heads"),
    "mixup_alpha": ("value", "classes", "heads"),
    "regression_loss": ("class", "classes", "heads"),
    "augment_no_flip_labels": ("value",),
    "min_top1_accuracy": ("value", "classes", "heads"),
    "min_gain_over_baselines": ("value", "classes", "heads"),
    "evaluate_all_prompts": ("value", "classes", "heads"),
    "export_runtime": ("value", "classes", "heads"),
    "export_quantization_bit": ("value", "classes", "heads"),
    "export_engines": ("value", "classes", "heads"),
}
"""Settings that mean nothing for some kinds of labels."""
_WORDS: dict[TargetKind, str] = {
    "class": "one class (problem_type: single_label_classification)",
    "classes": "several classes at once (problem_type: multi_label_classification)",
    "heads": "several heads (action_heads)",
    "value": "a number (problem_type: regression)",
}


def kind_of(settings: ActionClsConfig) -> TargetKind:
    """What is told of a clip."""
    if settings.action_heads:
        return "heads"
    kinds: dict[str, TargetKind] = {MULTI_LABEL: "classes", REGRESSION: "value"}
    return kinds.get(settings.problem_type, "class")


def column_of(kind: TargetKind) -> Column:
    """What preparation adds to each sample."""
    return {"class": LABEL, "value": VALUE}.get(kind, LABELS)


def values_of(kind: TargetKind, clip: Clip) -> dict[str, Any]:
    """Of that column, for a row of the annotations."""
    found: dict[TargetKind, Any] = {"class": clip.label, "value": clip.value}
    return {column_of(kind).name: found.get(kind, clip.labels)}


def metric_names(settings: ActionClsConfig) -> tuple[str, ...]:
    """The metrics of which more is better, the most telling one first."""
    match kind_of(settings):
        case "classes":
            return (
                *("mean_average_precision", "f1_micro", "f1_macro", "exact_match"),
                *("precision_micro", "recall_micro"),
            )
        case "heads":
            kinds = ("top1_accuracy", "mean_class_accuracy")
            return ("joint_accuracy", *(f"{name}_{kind}" for name in settings.action_heads for kind in kinds))
        case "value":
            return ("r2", "spearman")
        case _:
            return ("top1_accuracy",)


def check_no_idle_settings(config: RunConfig) -> None:
    """Raises:
    ConfigError: a setting means nothing for what clips are labelled with.
    """
    kind, usual, given = kind_of(config.action_cls), RunConfig().flat(), config.flat()
    idle = [name for name, kinds in _IDLE.items() if kind in kinds and given[name] != usual[name]]
    if idle:
        raise ConfigError(
            f"{', '.join(idle)}: clips are labelled with {_WORDS[kind]}, for which that means nothing: leave it out "
            "(docs/labels.md says what there is)"
        )
