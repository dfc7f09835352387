import importlib.util
from typing import get_args

import pytest

from ivcp.settings import ConfigError, config_from_settings
from ivcp.settings.sections.training import Optimizer
from ivcp.training.packages import check_packages, check_text_packages

ABSENT = importlib.util.find_spec


def without(monkeypatch, *modules):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else ABSENT(name))


@pytest.mark.parametrize(
    ("settings", "module", "message"),
    [
        ({"report_to": "mlflow,wandb"}, "wandb", "report_to = wandb needs the package wandb: pip install wandb"),
        ({"optim": "paged_adamw_8bit"}, "bitsandbytes", "optim = paged_adamw_8bit needs the package bitsandbytes"),
        ({"optim": "stable_adamw"}, "optimi", "optim = stable_adamw needs the package torch-optimi"),
        ({"deepspeed": "z2"}, "deepspeed", "deepspeed = z2 needs the package deepspeed"),
        ({"quantization_bit": 4}, "bitsandbytes", "quantization_bit = 4 needs the package bitsandbytes"),
        ({"flash_attn": "fa2"}, "flash_attn", "flash_attn = fa2 needs the package flash-attn"),
        ({"enable_liger_kernel": True}, "liger_kernel", "enable_liger_kernel needs the package liger-kernel"),
        (
            {"stage": "sft", "predict_with_generate": True},
            "rouge_chinese",
            "predict_with_generate = true needs the package rouge-chinese: pip install rouge-chinese",
        ),
        ({}, "peft", "finetuning_type = lora needs the package peft"),
        ({"finetuning_type": "full"}, "accelerate", "training needs the package accelerate"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_setting(monkeypatch, settings, module, message):
    without(monkeypatch, module)
    with pytest.raises(ConfigError, match=message):
        check_packages(config_from_settings(settings))


def test_a_classifier_compares_no_texts(monkeypatch):
    without(monkeypatch, "jieba")
    check_packages(config_from_settings({"predict_with_generate": True, "report_to": "none"}))
    with pytest.raises(ConfigError, match="jieba"):
        check_text_packages(config_from_settings({"stage": "dpo", "predict_with_generate": True}))


def test_all_are_named_at_once(monkeypatch):
    without(monkeypatch, "wandb", "torchao")
    with pytest.raises(ConfigError, match=r"wandb.*; optim = adamw_torch_8bit needs the package torchao"):
        check_packages(config_from_settings({"report_to": "wandb", "optim": "adamw_torch_8bit"}))


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"])
def test_torchs_own_optimizers_need_nothing(optim):
    assert optim in get_args(Optimizer)
    check_packages(config_from_settings({"optim": optim, "report_to": "none"}))
