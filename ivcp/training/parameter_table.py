"""What trains and what does not, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ivcp.distributed.weights import full_shape
from ivcp.models.adapters import log
from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.families import part_of
from ivcp.stages.protocol import Stage
from ivcp.tracking.described import markdown_table


@dataclass(frozen=True)
class ParameterGroup:
    """One line of the table of what trains."""

    name: str
    trainable: int
    total: int


def parameter_table(module: BackboneModule, stage: Stage) -> list[ParameterGroup]:
    """Trainable and total parameters of each part, the largest first."""
    model = language_model_of(module.backbone)
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = "lora" if ".lora_" in name else part_of(name.replace(".base_layer.", "."), model)
        _count(counts, part, parameter)
    for name, parameter in module.named_parameters():
        if not name.startswith("backbone."):
            _count(counts, stage.part_of(name), parameter)
    rows = [ParameterGroup(name, trainable, total) for name, (trainable, total) in counts.items()]
    return sorted(rows, key=lambda row: -row.total)


def log_parameter_table(rows: Sequence[ParameterGroup]) -> None:
    """Logs what trains and what does not."""
    trainable, total = sum(row.trainable for row in rows), sum(row.total for row in rows)
    lines = [f"{row.name:<18}{row.trainable:>16,} of {row.total:>16,}" for row in rows]
    log.info("trainable parameters: %s of %s\n%s", f"{trainable:,}", f"{total:,}", "\n".join(lines))


def parameters_in_words(rows: Sequence[ParameterGroup]) -> str:
    """The table as Markdown, with a sum."""
    whole = ParameterGroup("all", sum(row.trainable for row in rows), sum(row.total for row in rows))
    return markdown_table(
        ("part", "trainable parameters", "parameters"),
        [(row.name, f"{row.trainable:,}", f"{row.total:,}") for row in (*rows, whole)],
    )


def _count(counts: dict[str, list[int]], part: str, parameter: nn.Parameter) -> None:
    packed = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights into one element
    size = full_shape(parameter).numel() if packed is None else packed.shape.numel()
    entry = counts.setdefault(part, [0, 0])
    entry[0] += size if parameter.requires_grad else 0
    entry[1] += size
