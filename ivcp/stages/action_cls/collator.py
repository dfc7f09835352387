"""From training clips to a batch: answers behind the tokens, clips mixed in pairs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ivcp.models.processor import Batch, ClipProcessor, PreparedClip


@dataclass(frozen=True)
class TrainingCollator:
    """Makes the batches of training; evaluation takes `ClipProcessor.collate`."""

    processor: ClipProcessor
    num_classes: int
    with_answers: bool = False
    mixup_alpha: float = 0.0
    seed: int = 0

    def __call__(self, clips: Sequence[PreparedClip]) -> Batch:
        """A right-padded batch; with mixup, `labels` holds probabilities, (batch, num_classes)."""
        if not self.mixup_alpha:
            return self.processor.collate(clips, with_answers=self.with_answers)
        mixed, labels = mixup(clips, alpha=self.mixup_alpha, num_classes=self.num_classes, seed=self.seed)
        return self.processor.collate(mixed, with_answers=self.with_answers) | {"labels": labels}


def mixup(
    clips: Sequence[PreparedClip], *, alpha: float, num_classes: int, seed: int
) -> tuple[list[PreparedClip], torch.Tensor]:
    """Each clip mixed with another one of the batch, and the labels' shares, (len(clips), num_classes).

    Frames and labels are mixed with one share from Beta(alpha, alpha) (Zhang et al., "mixup: Beyond Empirical Risk
    Minimization", arXiv:1710.09412). A clip whose partner has frames of another shape stays as it is. The same batch
    is always mixed in the same way, so that a resumed run repeats it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(" ".join(clip.clip_id for clip in clips).encode())])
    share, partners = float(rng.beta(alpha, alpha)), rng.permutation(len(clips))
    labels = functional.one_hot(torch.tensor([clip.label for clip in clips]), num_classes).float()
    fits = torch.tensor(
        [clip.frames.shape == clips[other].frames.shape for clip, other in zip(clips, partners, strict=True)]
    )
    shares = torch.where(fits, share, 1.0).unsqueeze(1)
    mixed = [
        replace(clip, frames=_blend(clip, clips[other], share)) if fit else clip
        for clip, other, fit in zip(clips, partners, fits, strict=True)
    ]
    return mixed, shares * labels + (1 - shares) * labels[torch.from_numpy(partners)]


def _blend(first: PreparedClip, second: PreparedClip, share: float) -> NDArray[np.uint8]:
    blended = first.frames * np.float32(share) + second.frames * np.float32(1 - share)
    return np.rint(blended).astype(np.uint8)
