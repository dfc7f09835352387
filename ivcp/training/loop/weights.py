"""How much the mean loss of each batch of an optimizer step weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ivcp.data.prepared.batches import PlannedBatches


class StepWeigher:
    """Makes the loss of a step, of several batches and processes, the mean over all items of it.

    transformers takes the mean over the batches: batches with few items would count as much as those with many. Where
    items are clips, batches have as many of them as others, unless they were planned.
    """

    def __init__(self, counts: str | None, planned: PlannedBatches | None = None) -> None:
        """`counts` names the entry of a batch, (batch,), that says how many items its mean loss is over; null is one
        for each clip."""
        self._counts, self._planned = counts, planned
        self._mean: Tensor | None = None

    def begin(self, batches: Sequence[Mapping[str, Any]], accelerator: Any) -> None:
        """Looks at the batches of this process's next step; all processes call this together."""
        if self._counts is None or not batches:
            return
        counts = torch.stack([batch[self._counts].sum() for batch in batches]).to(accelerator.device)
        of_all: Tensor = accelerator.gather(counts)
        self._mean = of_all.double().mean().clamp(min=1)

    def weight(self, batch: Mapping[str, Any], *, num_clips: int) -> Tensor | float | None:
        """What the mean loss of a batch of the step is multiplied by; null where all weigh the same."""
        if self._counts is None:
            return None if self._planned is None else num_clips / self._planned.mean_size
        if self._mean is None:
            return None
        count: Tensor = batch[self._counts].sum()
        return (count / self._mean).float()
