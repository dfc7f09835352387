"""The scores of whole conversations, as a reward model gives them without a pair to compare."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ivcp.data.prepared.sample import Sample
from ivcp.stages.language.answers import RewardModule
from ivcp.stages.loaded_model import LoadedModel


def scores_of(model: LoadedModel, samples: Sequence[Sample]) -> Tensor:
    """How good the answers are that conversations end with, (samples,), float32 on the CPU; without gradients.

    `model` is a reward model.
    """
    module = model.module
    assert isinstance(module, RewardModule)
    batch = model.processor.batch(samples, prompts_only=False)
    del batch["token_labels"]
    with torch.no_grad(), model.compute.autocast():
        return module.scores(**model.compute.to_device(batch)).cpu()
