"""What the settings ask of a measurement, checked against the stage before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Collection

from ivcp.distributed.deepspeed_files import zero_stage
from ivcp.records.language_evaluation import TEXT_METRIC_NAMES
from ivcp.settings import ConfigError, EvaluationConfig, RunConfig
from ivcp.stages.protocol import Stage
from ivcp.training.packages import check_text_packages

log = logging.getLogger(__name__)


def check_measuring(stage: Stage, config: RunConfig) -> None:
    """Checks that the model of a stage can be measured as `config` asks.

    Raises:
        ConfigError: it cannot write, not here, or the gate's metric is none of the stage's.
    """
    if stage.rows == "labels":
        _check_classes(stage, config)
        return
    if config.generation.predict_with_generate:
        _check_writing(stage, config)
    metric = config.evaluation.gate_metric
    if metric in TEXT_METRIC_NAMES and not config.generation.predict_with_generate:
        raise ConfigError(f"gate_metric: {metric} is of written answers: set predict_with_generate: true")
    evaluation = config.evaluation
    asked = {
        "min_top1_accuracy": evaluation.min_top1_accuracy > 0,
        "evaluate_all_prompts": evaluation.evaluate_all_prompts,
    }
    if named := [key for key, is_set in asked.items() if is_set]:
        log.warning("%s: no effect in stage %s: each row asks its own question, and gate_metric decides",
                    ", ".join(named), config.method.stage)  # fmt: skip


def check_measuring_here(stage: Stage, config: RunConfig) -> None:
    """`check_measuring`, on the machine that measures: what compares answers has to be installed.

    Raises:
        ConfigError: it is not, or the model cannot be measured as `config` asks.
    """
    check_measuring(stage, config)
    if stage.rows != "labels":
        check_text_packages(config)


def _check_classes(stage: Stage, config: RunConfig) -> None:
    metric, known = config.evaluation.gate_metric, dict.fromkeys((*stage.metric_names, *stage.compared_by, "loss"))
    if stage.config.action_cls.has_other_targets:
        _check_other_targets(config.evaluation, known)
    elif metric is not None:
        raise ConfigError(
            f"gate_metric: {metric} with stage: {config.method.stage}: a classifier passes by "
            "min_top1_accuracy; set that, and remove gate_metric"
        )
    generation = config.generation
    asked = {"predict_with_generate": generation.predict_with_generate, "do_predict": generation.do_predict}
    if named := [key for key, is_set in asked.items() if is_set]:
        log.warning("%s: no effect in stage %s: a clip gets a class, and `ivcp evaluate` writes the predictions of the "
                    "test split", ", ".join(named), config.method.stage)  # fmt: skip


def _check_other_targets(evaluation: EvaluationConfig, known: Collection[str]) -> None:
    """Of several classes, heads and numbers: their gate is another one, and none of one class."""
    if evaluation.gate_metric is not None and evaluation.gate_metric not in known:
        raise ConfigError(
            f"gate_metric: {evaluation.gate_metric} is not measured of such labels; what is: {', '.join(known)}"
        )
    asked = {
        "min_top1_accuracy": evaluation.min_top1_accuracy > 0,
        "min_gain_over_baselines": evaluation.min_gain_over_baselines is not None,
        "evaluate_all_prompts": evaluation.evaluate_all_prompts,
    }
    if named := [key for key, is_set in asked.items() if is_set]:
        raise ConfigError(
            f"{', '.join(named)}: for models of one class; such labels pass by gate_metric (docs/labels.md): leave it "
            "out"
        )


def _check_writing(stage: Stage, config: RunConfig) -> None:
    if not stage.writes:
        raise ConfigError(
            f"predict_with_generate with stage: {config.method.stage}: a {stage.title.lower()} gives numbers and "
            "writes nothing; remove predict_with_generate: what the stage measures is measured without it"
        )
    if stage.rows == "texts":
        raise ConfigError(
            f"predict_with_generate with stage: {config.method.stage}: its texts have no question that could be "
            "answered; remove predict_with_generate (perplexity is measured without it), or evaluate with stage: sft"
        )
    if config.train.deepspeed and zero_stage(config.train.deepspeed) == 3:
        raise ConfigError(
            f"predict_with_generate with deepspeed: {config.train.deepspeed} (ZeRO-3): the weights lie in pieces, and "
            "every token would gather them again; train without predict_with_generate, and then run `ivcp evaluate "
            "FILE.yaml deepspeed=null predict_with_generate=true`"
        )
