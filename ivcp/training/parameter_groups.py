"""The optimizer's parameter groups: every part with its own learning rate, with and without weight decay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.families import part_of
from ivcp.stages.protocol import Part, Stage

_BACKBONE = "backbone."


def parameter_groups(module: BackboneModule, stage: Stage, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Groups of what trains: `name` is the part, `lr` its peak learning rate.

    `decayed` holds the names of the parameters that weight decay applies to, where their part lets it.
    """
    parts = parts_of(stage)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part = trained_part(name, module, stage)
        has_decay = name in decayed and parts[part].decays
        group = groups.setdefault(
            (part, has_decay),
            {
                "name": part,
                "params": [],
                "lr": parts[part].learning_rate,
                "weight_decay": stage.config.train.weight_decay if has_decay else 0.0,
            },
        )
        group["params"].append(parameter)
    order = list(parts)
    return sorted(groups.values(), key=lambda group: order.index(group["name"]))


def parts_of(stage: Stage) -> dict[str, Part]:
    """The parts of the backbone, and those that the stage adds, with their peak learning rates."""
    train = stage.config.train
    rate = train.learning_rate
    return {
        "language_model": Part(rate),
        "lm_head": Part(rate),
        "projector": Part(train.projector_learning_rate or rate),
        "vision_tower": Part(train.vision_tower_learning_rate or rate),
        **stage.parts,
    }


def trained_part(name: str, module: BackboneModule, stage: Stage) -> str:
    """The part that a parameter of the module belongs to; an adapter's matrices belong to what they adapt."""
    if not name.startswith(_BACKBONE):
        return stage.part_of(name)
    plain = name.removeprefix(_BACKBONE).removeprefix("base_model.model.").replace(".base_layer.", ".")
    return part_of(plain, language_model_of(module.backbone))
