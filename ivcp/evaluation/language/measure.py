"""The loss and the metrics of a stage on samples, as validation has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ivcp.data.prepared.sample import Sample
from ivcp.inference.finite import check_finite_outputs
from ivcp.inference.loop import Samples, batches_of, run_batches
from ivcp.models.backbone import BackboneModule
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.protocol import Collate


@dataclass(frozen=True)
class StageNumbers:
    """What a stage measures of its model."""

    loss: float | None
    """Null of no samples."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class _Batch:
    """What was computed of one batch, on the CPU."""

    loss: float
    weight: float
    """How many items `loss` is the mean over."""
    outputs: Tensor
    """(batch, numbers)"""
    targets: tuple[Tensor, ...]
    sample_ids: tuple[str, ...]


def measure_stage(
    model: LoadedModel, module: BackboneModule, samples: Samples, *, batch_size: int, num_workers: int = 0
) -> StageNumbers:
    """The loss and the metrics of `module`, which is that of `model` as its stage measures it.

    Raises:
        NonFiniteError: an output is not finite.
    """
    if not len(samples):
        return StageNumbers(None, {})
    stage = model.stage

    def forward(batch: Mapping[str, Any]) -> _Batch:
        inputs = batch["inputs"]
        output = module(**inputs)
        weight = len(batch["sample_ids"]) if stage.loss_counts is None else float(inputs[stage.loss_counts].sum())
        targets = tuple(inputs[name].cpu() for name in stage.target_names)
        return _Batch(float(output.loss), weight, output.logits.float().cpu(), targets, batch["sample_ids"])

    collate = stage.collator(module, model.processor, positions=None, training=False)
    found = list(
        run_batches(
            samples,
            forward,
            collate=_Named(collate),
            batches=batches_of(len(samples), batch_size),
            compute=model.compute,
            num_workers=num_workers,
            what="measuring",
        )
    )
    outputs, names = (
        torch.cat([batch.outputs for batch in found]),
        [each for batch in found for each in batch.sample_ids],
    )
    check_finite_outputs(outputs, lambda row: names[row], source=str(model.directory))
    weight = sum(batch.weight for batch in found)
    targets = [torch.cat(of_name).numpy() for of_name in zip(*(batch.targets for batch in found), strict=True)]
    return StageNumbers(
        loss=sum(batch.loss * batch.weight for batch in found) / max(weight, 1.0),
        metrics=stage.metrics(outputs.numpy(), targets[0] if len(targets) == 1 else tuple(targets)),
    )


@dataclass(frozen=True)
class _Named:
    """Collates, and says whose samples they are."""

    collate: Collate

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {"inputs": self.collate(samples), "sample_ids": tuple(sample.sample_id for sample in samples)}
