"""Opens what trains in a backbone: LoRA matrices around its layers, or full weights."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

from torch import nn

from ivcp.models.families import part_of, prefix_of
from ivcp.settings import MethodConfig

log = logging.getLogger(__name__)

# peft 0.21 asks transformers 5.23 for the old name, which is nobody's business here.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

_PLAIN_NAMES = re.compile(r"[\w.]+(\s*,\s*[\w.]+)*")


class UnsupportedMethodError(ValueError):
    """A way of training that the model does not allow; the message names the setting and what to do."""


def prepare_backbone(model: Any, method: MethodConfig, *, writes: bool = False) -> Any:
    """Freezes `model` and opens what `finetuning_type` trains; for LoRA, returns the peft model around it.

    `writes` says that its vocabulary logits are computed: `full` then trains what makes them, too.

    Raises:
        UnsupportedMethodError: the model has no such layers.
    """
    model.requires_grad_(False)
    if method.finetuning_type == "lora":
        return _add_lora(model, method)
    layers = _trained_layers(model, method.freeze_trainable_layers) if method.finetuning_type == "freeze" else None
    open_parts = (*_open_parts(method), *(("lm_head",) if writes and layers is None else ()))
    for name, parameter in model.named_parameters():
        part = part_of(name, model)
        is_open = part in open_parts and (part != "language_model" or layers is None)
        parameter.requires_grad_(is_open or (layers is not None and name.startswith(layers)))
    return model


def lora_target(model: Any, method: MethodConfig) -> str:
    """A regular expression over module names: `all` linear layers of the parts that train, or the named ones of them.

    Names alone would also match the vision tower, which then could not stay frozen. Anything that is not a plain
    list of names is taken as a regular expression already.

    Raises:
        UnsupportedMethodError: the parts that train have no layer of a given name.
    """
    if not _PLAIN_NAMES.fullmatch(method.lora_target):
        return method.lora_target
    parts = _open_parts(method)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and part_of(f"{name}.", model) in parts
    ]
    last_names = {name.rsplit(".", 1)[-1] for name in linear}
    names = last_names if method.lora_target == "all" else {name.strip() for name in method.lora_target.split(",")}
    unknown = sorted(name for name in names if not any(_ends_with(candidate, name) for candidate in linear))
    if unknown:
        raise UnsupportedMethodError(
            f"lora_target names {', '.join(unknown)}, the {' and '.join(parts)} has the linear layers "
            f"{', '.join(sorted(last_names))}"
        )
    chosen = [candidate for candidate in linear if any(_ends_with(candidate, name) for name in names)]
    return "|".join(re.escape(name) for name in chosen)


def check_method(model: Any, method: MethodConfig) -> None:
    """Checks that `finetuning_type` finds what it trains in a model, which may be without weights, on torch's device
    `meta`; needs no peft.

    Raises:
        UnsupportedMethodError: the model has no such layers.
    """
    if method.finetuning_type == "lora":
        _check_pattern(model, method.lora_target, lora_target(model, method))
    elif method.finetuning_type == "freeze":
        _trained_layers(model, method.freeze_trainable_layers)


def _check_pattern(model: Any, given: str, pattern: str) -> None:
    """Checks that a regular expression finds linear layers: it is matched with their whole names."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UnsupportedMethodError(
            f"lora_target = {given}: it is no list of names, and no regular expression ({error}): expected all, "
            "q_proj,v_proj, or .*\\.(q|v)_proj"
        ) from error
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if any(compiled.fullmatch(name) for name in names):
        return
    inside = next((name for name in names if compiled.search(name)), None)
    hint = f"write .*{given} for any layer whose name ends so, as {inside}" if inside else f"as {names[0]}"
    raise UnsupportedMethodError(
        f"lora_target = {given} is a regular expression over whole names, which none of the {len(names)} linear layers "
        f"of the model has: {hint}"
    )


def _ends_with(module_name: str, name: str) -> bool:
    return module_name == name or module_name.endswith(f".{name}")


def _add_lora(model: Any, method: MethodConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    check_method(model, method)
    settings = LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.resolved_lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=lora_target(model, method),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    return get_peft_model(model, settings)


def _open_parts(method: MethodConfig) -> tuple[str, ...]:
    """The parts that are not frozen as a whole."""
    tower = () if method.freeze_vision_tower else ("vision_tower",)
    projector = () if method.freeze_multi_modal_projector else ("projector",)
    return ("language_model", *tower, *projector)


def _trained_layers(model: Any, count: int) -> tuple[str, ...]:
    """Prefixes of the parameters of the language model's last `count` layers, of the first ones where negative.

    Raises:
        UnsupportedMethodError: there are fewer.
    """
    decoder = model.get_decoder()
    layers = decoder.layers
    if abs(count) > len(layers):
        raise UnsupportedMethodError(
            f"freeze_trainable_layers = {count}: the language model has {len(layers)} layers; choose at most as many"
        )
    chosen = range(len(layers))[-count:] if count > 0 else range(-count)
    return tuple(f"{prefix_of(model, decoder)}layers.{number}." for number in chosen)
