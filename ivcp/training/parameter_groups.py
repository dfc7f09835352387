"""The optimizer's parameter groups: every part with its own learning rate, with and without weight decay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ivcp.models.backbone import language_model_of
from ivcp.models.families import part_of
from ivcp.settings import RunConfig
from ivcp.stages.action_cls.module import ActionClassifier

_BACKBONE = "backbone."


def parameter_groups(classifier: ActionClassifier, config: RunConfig, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Groups of what trains: `name` is the part, `lr` its peak learning rate.

    The row's learning rate is `action_token_lr_scale` times `learning_rate`; scaling its gradient instead would have
    no effect under Adam. `decayed` holds the names of the parameters that weight decay applies to.
    """
    rates = learning_rates(config)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        part = trained_part(name, classifier)
        has_decay = name in decayed and part != "action_token_row"
        group = groups.setdefault(
            (part, has_decay),
            {
                "name": part,
                "params": [],
                "lr": rates[part],
                "weight_decay": config.train.weight_decay if has_decay else 0.0,
            },
        )
        group["params"].append(parameter)
    order = list(rates)
    return sorted(groups.values(), key=lambda group: order.index(group["name"]))


def learning_rates(config: RunConfig) -> dict[str, float]:
    """The peak learning rate of each part."""
    train = config.train
    rate = train.learning_rate
    return {
        "language_model": rate,
        "lm_head": rate,
        "projector": train.projector_learning_rate or rate,
        "vision_tower": train.vision_tower_learning_rate or rate,
        "action_decoder": train.action_decoder_learning_rate or rate,
        "action_token_row": rate * config.action_cls.action_token_lr_scale,
    }


def trained_part(name: str, classifier: ActionClassifier) -> str:
    """The part that a parameter of the classifier belongs to; an adapter's matrices belong to what they adapt."""
    if not name.startswith(_BACKBONE):
        return "action_decoder" if name.startswith("decoder.") else "action_token_row"
    plain = name.removeprefix(_BACKBONE).removeprefix("base_model.model.").replace(".base_layer.", ".")
    return part_of(plain, language_model_of(classifier.backbone))
