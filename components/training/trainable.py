"""Decides what trains: LoRA matrices or full weights, the decoder, the token's row."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from components.action_model import ActionClassifier, language_model_of
from components.sharded_weights import full_shape
from components.training_config import MethodConfig

log = logging.getLogger(__name__)

_PROJECTOR = re.compile(r"(^|\.)(merger|deepstack_merger_list|multi_modal_projector|connector|mlp1|resampler)\.")
_PLAIN_NAMES = re.compile(r"[\w.]+(\s*,\s*[\w.]+)*")


class UnsupportedMethodError(ValueError):
    """A way of training that the model does not allow; the message names the setting and what to do."""


@dataclass(frozen=True)
class ParameterGroup:
    """One line of the table of what trains."""

    name: str
    trainable: int
    total: int


def prepare_backbone(model: Any, method: MethodConfig) -> Any:
    """Freezes `model` and opens what `finetuning_type` trains; for LoRA, returns the peft model around it."""
    model.requires_grad_(False)
    if method.finetuning_type == "lora":
        return _add_lora(model, method)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_trains_in_full(part_of(name, model), method))
    return model


def part_of(name: str, model: Any) -> str:
    """The part of a transformers model that a parameter belongs to.

    One of `language_model`, `vision_tower`, `projector`, `lm_head`.
    """
    if _PROJECTOR.search(name):
        return "projector"
    parts = {
        "vision_tower": _prefix_of(model, model.get_encoder(modality="video")),
        "language_model": _prefix_of(model, model.get_decoder()),
    }
    for part, prefix in parts.items():
        if name.startswith(prefix):
            return part
    return "lm_head"


def parameter_table(classifier: ActionClassifier) -> list[ParameterGroup]:
    """Trainable and total parameters of each part, the largest first."""
    model = language_model_of(classifier.backbone)
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = "lora" if ".lora_" in name else part_of(name.replace(".base_layer.", "."), model)
        _count(counts, part, parameter)
    for parameter in classifier.decoder.parameters():
        _count(counts, "action_decoder", parameter)
    _count(counts, "action_token_row", classifier.action_token_row)
    rows = [ParameterGroup(name, trainable, total) for name, (trainable, total) in counts.items()]
    return sorted(rows, key=lambda row: -row.total)


def log_parameter_table(classifier: ActionClassifier) -> None:
    """Logs what trains and what does not, before the first step."""
    rows = parameter_table(classifier)
    trainable, total = sum(row.trainable for row in rows), sum(row.total for row in rows)
    lines = [f"{row.name:<18}{row.trainable:>16,} of {row.total:>16,}" for row in rows]
    log.info("trainable parameters: %s of %s\n%s", f"{trainable:,}", f"{total:,}", "\n".join(lines))


def lora_target(model: Any, target: str) -> str:
    """A regular expression over module names: `all` linear layers of the language model, or the named ones of it.

    Names alone would also match the vision tower, which then could not stay frozen. Anything that is not a plain
    list of names is taken as a regular expression already.
    """
    if not _PLAIN_NAMES.fullmatch(target):
        return target
    decoder = model.get_decoder()
    linear = {name.rsplit(".", 1)[-1] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    names = linear if target == "all" else {name.strip() for name in target.split(",")}
    unknown = sorted(name for name in names if name.rsplit(".", 1)[-1] not in linear)
    if unknown:
        raise UnsupportedMethodError(
            f"lora_target names {', '.join(unknown)}, the language model has the linear layers "
            f"{', '.join(sorted(linear))}"
        )
    alternatives = "|".join(re.escape(name) for name in sorted(names))
    return rf"{re.escape(_prefix_of(model, decoder))}(.*\.)?({alternatives})"


def _add_lora(model: Any, method: MethodConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.resolved_lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=lora_target(model, method.lora_target),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    return get_peft_model(model, settings)


def _trains_in_full(part: str, method: MethodConfig) -> bool:
    if part == "vision_tower":
        return not method.freeze_vision_tower
    if part == "projector":
        return not method.freeze_multi_modal_projector
    return part == "language_model"


def _prefix_of(model: Any, module: nn.Module) -> str:
    name = next(name for name, candidate in model.named_modules() if candidate is module)
    return f"{name}." if name else ""


def _count(counts: dict[str, list[int]], part: str, parameter: nn.Parameter) -> None:
    entry = counts.setdefault(part, [0, 0])
    numel = full_shape(parameter).numel()
    entry[0] += numel if parameter.requires_grad else 0
    entry[1] += numel
