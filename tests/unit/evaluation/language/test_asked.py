"""What cannot be measured is said before anything is loaded."""

from __future__ import annotations

import pytest

from ivcp.evaluation.language.asked import check_measuring
from ivcp.settings import ConfigError, config_from_settings
from ivcp.stages.registry import stage_of


def check(**settings):
    config = config_from_settings(settings)
    check_measuring(stage_of(config), config)


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto"])
def test_stages_that_write_can_be_asked(stage):
    check(stage=stage, predict_with_generate=True, gate_metric="exact_match", gate_minimum=0.9)


def test_a_reward_model_writes_nothing():
    with pytest.raises(ConfigError, match="stage: rm: a reward model gives numbers and writes nothing; remove"):
        check(stage="rm", predict_with_generate=True)


def test_texts_ask_nothing():
    with pytest.raises(ConfigError, match="stage: pt: its texts have no question"):
        check(stage="pt", predict_with_generate=True)


@pytest.mark.parametrize("deepspeed", ["z3", "z3_offload", "examples/deepspeed/ds_z3_config.json"])
def test_pieces_of_weights_write_nothing(deepspeed):
    with pytest.raises(ConfigError, match=r"ZeRO-3.*deepspeed=null predict_with_generate=true"):
        check(stage="sft", predict_with_generate=True, deepspeed=deepspeed)
    check(stage="sft", deepspeed=deepspeed)
    check(stage="sft", predict_with_generate=True, deepspeed="z2")


def test_a_metric_of_answers_needs_answers():
    with pytest.raises(ConfigError, match="gate_metric: rouge-l is of written answers: set predict_with_generate"):
        check(stage="sft", gate_metric="rouge-l", gate_minimum=30)


def test_a_classifier_passes_by_its_accuracy():
    with pytest.raises(ConfigError, match="a classifier passes by min_top1_accuracy"):
        check(gate_metric="loss", gate_maximum=1.0)


def test_a_classifier_writes_nothing_and_says_so(caplog):
    check(predict_with_generate=True, do_predict=True)
    assert "predict_with_generate, do_predict: no effect in stage action_cls" in caplog.text


def test_settings_of_classifiers_have_no_effect_on_others_and_that_is_said(caplog):
    check(stage="sft", min_top1_accuracy=0.9, evaluate_all_prompts=True)
    assert "min_top1_accuracy, evaluate_all_prompts: no effect in stage sft" in caplog.text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gate_minimum": 0.9}, "gate_minimum without a metric"),
        ({"gate_metric": "exact_match"}, "needs gate_minimum, for more is better, and came with no bound"),
        ({"gate_metric": "loss", "gate_minimum": 1}, "needs gate_maximum, for less is better"),
        ({"gate_metric": "loss", "gate_minimum": 1, "gate_maximum": 2}, "came with gate_minimum and gate_maximum"),
        ({"length_penalty": 2.0}, "set num_beams: 4"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_settings_that_contradict_each_other(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        config_from_settings(settings)
