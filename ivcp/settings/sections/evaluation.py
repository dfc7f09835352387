"""Settings of what comes after training: the gate, export and registry, tracking."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ivcp.settings.places import LocalPath, Place
from ivcp.settings.sections.section import Section, as_names

LESS_IS_BETTER = frozenset({"loss", "perplexity", "mae", "rmse"})
"""Metrics that a model should have little of."""

BaselineName = Literal["majority", "middle", "shuffled", "linear_probe", "zero_shot"]


class EvaluationConfig(Section):
    """The evaluation step and its gate."""

    min_top1_accuracy: float = Field(0.0, ge=0, le=1)
    """The gate: a model below this is neither exported nor deployed."""
    compare_with_champion: bool = True
    """The gate also refuses a model that is worse than the registered one with alias `model_alias`."""
    champion_tolerance: float = Field(0.0, ge=0, le=1)
    """How much top-1 accuracy below the champion still passes. Of the language stages' metrics as much of their scale
    (0 to 1, or 0 to 100); of those without a scale, such as perplexity, that share of the champion's figure."""
    champion_class_tolerance: float | None = Field(None, ge=0, le=1)
    """The gate also refuses a classifier that recognises a smaller share of any one class than the champion does, by
    more than this. Null looks at all classes together only."""
    max_calibration_error: float | None = Field(None, ge=0, le=1)
    """The gate also refuses a classifier whose expected calibration error, as it is served, is above this."""
    gate_metric: str | None = None
    """The gate of the language stages, and of `problem_type` and `action_heads` other than one class: the metric that
    decides, by its name in `metrics.json`, for example `exact_match`, `rouge-l`, `accuracy` or `perplexity`;
    `mean_average_precision`, `joint_accuracy` or `mae`. Null lets every model through that is not worse than the
    champion."""
    gate_minimum: float | None = None
    """What `gate_metric` has to reach, where more is better."""
    gate_maximum: float | None = None
    """What `gate_metric` may not exceed, where less is better: `loss`, `perplexity`, `mae` and `rmse`."""
    skip_unchanged: bool = False
    """End the pipeline before training, and well, when neither data nor settings changed since the champion."""
    disturb_frames: tuple[Literal["reversed", "shuffled", "middle"], ...] = ()
    """Also measure with disturbed frames, to see whether the order of time is used."""

    baselines: tuple[BaselineName, ...] = ("majority", "middle", "shuffled", "linear_probe", "zero_shot")
    """What a classifier is compared with, on at most 1,000 of the same clips: the most frequent class, the middle frame
    alone and shuffled frames, a linear probe on the base model as it was before training (8 clips per class in ten
    draws, and up to 2,000), and the base model asked in words. Empty measures none."""
    min_gain_over_baselines: float | None = Field(None, ge=-1, le=1)
    """The gate also refuses a classifier whose top-1 accuracy is not above that of the majority, the probes and the
    zero-shot answers by this much, on the same clips. Null compares nothing."""
    probe_layers: tuple[int, ...] = ()
    """Decoder layers of the base model whose states the linear probe is tried on; the best by folds of the training
    clips is measured. 1 is the first, -1 the last; empty are those at each quarter of the depth."""

    evaluate_all_prompts: bool = False
    """Also measure with each of the 16 most frequent prompts of the training rows: their mean and spread."""

    sure_accuracy: float | None = Field(0.95, gt=0, lt=1)
    """Share of right ones among the answers that are not called unsure: the confidence below which an answer is unsure
    is the lowest one for which the validation clips show that. Null calls no answer unsure."""

    @field_validator("disturb_frames", "baselines", "probe_layers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return as_names(value)

    @field_validator("probe_layers")
    @classmethod
    def _are_layers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if 0 in value:
            raise ValueError("expected numbers of layers, 1 for the first and -1 for the last, got 0")
        return value

    @model_validator(mode="after")
    def _gate_has_one_bound(self) -> Self:
        bounds = {"gate_minimum": self.gate_minimum, "gate_maximum": self.gate_maximum}
        named = [key for key, value in bounds.items() if value is not None]
        if self.gate_metric is None:
            if named:
                raise ValueError(f"{' and '.join(named)} without a metric: set gate_metric, for example exact_match")
            return self
        wanted = "gate_maximum" if self.gate_metric in LESS_IS_BETTER else "gate_minimum"
        if named != [wanted]:
            raise ValueError(
                f"gate_metric: {self.gate_metric} needs {wanted}, for {'less' if wanted == 'gate_maximum' else 'more'} "
                f"is better, and came with {' and '.join(named) or 'no bound'}"
            )
        return self


class ExportConfig(Section):
    """The merged model and its place in the registry."""

    export_dir: LocalPath | None = None
    """Where the merged model goes; null is inside the run's folder."""
    export_size: float = Field(5.0, gt=0)
    """Largest weight file in gigabytes; a larger model is split over several."""
    export_device: Literal["cpu", "auto"] = "cpu"
    """Where the merge and its check compute, in float32: `auto` is the GPU where there is one."""
    export_runtime: Literal["onnxruntime", "openvino"] | None = None
    """Also write the model as a graph that this runtime computes on CPUs, faster than PyTorch: a complete directory of
    its own, `<runtime>` or `<runtime>_int8` in the exported one, which is deployed unless `serve_graph` is false. Null
    writes none, unless `export_quantization_bit` is set: then it is `openvino`."""
    export_quantization_bit: Literal[8, 4] | None = None
    """Bits of the graph's weights; null is float32. The graph is measured on the test split before it is let out. 4
    needs `openvino`."""
    export_max_accuracy_drop: float = Field(0.01, ge=0, le=1)
    """How much top-1 accuracy on the test split a graph with rounded weights may lose; one that loses more is not let
    out, and export fails before anything is registered."""
    models_uri: Place | None = None
    """Folder or s3:// prefix that exported models are copied to, each to `<registered_model_name>/<run>` below it;
    that copy is what is registered and deployed. Null leaves a model where the step wrote it, and on a cluster is below
    the pipeline root."""
    registered_model_name: str | None = None
    """Name in MLflow's model registry, without `/` and `:`. Null is `ivcp-action-classifier` for `stage: action_cls`,
    and `ivcp-<stage>` for any other."""
    model_alias: str = Field("champion", pattern=r"^[\w-]+$", max_length=255)
    """Alias that a new version receives, after its deployment where there is one: letters, digits, `_` and `-`."""
    challenger_alias: str = Field("challenger", pattern=r"^[\w-]+$", max_length=255)
    """Alias of the newest version until it receives `model_alias`."""

    @model_validator(mode="after")
    def _has_a_runtime_for_its_bits(self) -> Self:
        if self.export_quantization_bit == 4 and self.export_runtime == "onnxruntime":
            raise ValueError(
                "export_quantization_bit = 4: ONNX Runtime computes in 8 bits here: take 8, or export_runtime: openvino"
            )
        return self

    @property
    def graph_runtime(self) -> Literal["onnxruntime", "openvino"] | None:
        """What computes the graph; null where none is asked for."""
        return self.export_runtime or ("openvino" if self.export_quantization_bit else None)

    @property
    def graph_folder(self) -> str:
        """The graph's folder in the exported directory."""
        bits = self.export_quantization_bit
        return f"{self.graph_runtime}_int{bits}" if bits else str(self.graph_runtime)

    @model_validator(mode="after")
    def _tells_aliases_apart(self) -> Self:
        if self.model_alias == self.challenger_alias:
            raise ValueError(f"model_alias and challenger_alias are both {self.model_alias}: name two")
        return self

    @field_validator("registered_model_name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.strip() or value in (".", "..") or PurePosixPath(value).name != value or ":" in value:
            raise ValueError(f"expected a name without / and :, as MLflow's registry wants it, got {value!r}")
        return value

    @field_validator("model_alias", "challenger_alias")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value.lower() == "latest" or re.fullmatch(r"[vV]\d+", value):
            raise ValueError(f"MLflow keeps latest, v1, v2, … for itself, got {value!r}: choose another alias")
        return value


class TrackingConfig(Section):
    """MLflow."""

    mlflow_tracking_uri: str | None = None
    """MLflow server or store; null is MLFLOW_TRACKING_URI, else a sqlite file in the runs folder."""
    mlflow_experiment_name: str = Field("ivcp", pattern=r"\S", max_length=500)
    """Experiment that runs belong to."""
    mlflow_run_id: str | None = None
    """Run that every step logs to; null is MLFLOW_RUN_ID, else a run of each step's own. The pipeline sets it."""
