"""The packages that a run's settings need, on the machine that trains."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator

from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.registry import stage_of

_OF_OPTIMIZERS = {
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "grokadamw": "grokadamw",
    "schedule_free_adamw": "schedulefree",
    "schedule_free_radam": "schedulefree",
    "schedule_free_sgd": "schedulefree",
    "stable_adamw": "torch-optimi",
}
_OF_BITSANDBYTES = ("8bit", "32bit", "paged", "ademamix", "rmsprop_bnb")
"""Parts of the names of optimizers that bitsandbytes has."""
_MODULES = {
    "torch-optimi": "optimi",
    "flash-attn": "flash_attn",
    "liger-kernel": "liger_kernel",
    "rouge-chinese": "rouge_chinese",
}
"""Packages whose modules are called otherwise."""


def check_packages(config: RunConfig) -> None:
    """Checks that the packages are installed that the settings name or need.

    Raises:
        ConfigError: some are not; names the setting of each.
    """
    _check([*_needed(config), *_of_texts(config)])


def check_text_packages(config: RunConfig) -> None:
    """Checks that the packages are installed that compare written answers, where some are to be written.

    Raises:
        ConfigError: some are not.
    """
    _check(_of_texts(config))


def _check(needed: Iterable[tuple[str, str]]) -> None:
    missing = [
        f"{setting} needs the package {package}: pip install {package}{', or change it' if '=' in setting else ''}"
        for setting, package in needed
        if importlib.util.find_spec(_MODULES.get(package, package)) is None
    ]
    if missing:
        raise ConfigError("; ".join(missing))


def _needed(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Settings and the package that each needs."""
    train, method = config.train, config.method
    yield from ((f"report_to = {name}", name) for name in train.report_to)
    package = _of_optimizer(train.optim)
    if package:
        yield f"optim = {train.optim}", package
    if train.deepspeed:
        yield f"deepspeed = {train.deepspeed}", "deepspeed"
    if method.quantization_bit:
        yield f"quantization_bit = {method.quantization_bit}", "bitsandbytes"
    if config.model.flash_attn == "fa2":
        yield "flash_attn = fa2", "flash-attn"
    if config.speed.enable_liger_kernel:
        yield "enable_liger_kernel", "liger-kernel"
    if method.finetuning_type == "lora":
        yield "finetuning_type = lora", "peft"
    yield "training", "accelerate"


def _of_texts(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.generation.predict_with_generate and stage_of(config).rows != "labels":
        names = ("jieba", "nltk", "rouge-chinese", "sacrebleu")
        yield from (("predict_with_generate = true", name) for name in names)


def _of_optimizer(name: str) -> str | None:
    if name in _OF_OPTIMIZERS:
        return _OF_OPTIMIZERS[name]
    return "bitsandbytes" if any(part in name for part in _OF_BITSANDBYTES) else None
