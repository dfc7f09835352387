"""From samples to a batch: classes beside the tokens, clips mixed in pairs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Batch, Processor
from ivcp.records.problem_types import TargetKind


@dataclass(frozen=True)
class Mixup:
    """Mixes each clip with another one of its batch (Zhang et al., "mixup: Beyond Empirical Risk Minimization",
    arXiv:1710.09412)."""

    alpha: float
    """The share is drawn from Beta(alpha, alpha)."""
    num_classes: int
    seed: int

    def __call__(self, samples: Sequence[Sample]) -> tuple[list[Sample], torch.Tensor]:
        """The mixed clips, and the labels' shares, (len(samples), num_classes).

        Frames and labels are mixed with one share. A clip whose partner has frames of another shape stays as it is. The
        same batch is always mixed in the same way, so that a resumed run repeats it.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(" ".join(s.sample_id for s in samples).encode())])
        share, partners = float(rng.beta(self.alpha, self.alpha)), rng.permutation(len(samples))
        labels = functional.one_hot(torch.tensor([s.columns["label"] for s in samples]), self.num_classes).float()
        pairs = [(sample, samples[other]) for sample, other in zip(samples, partners, strict=True)]
        fits = [_shapes(sample) == _shapes(other) for sample, other in pairs]
        shares = torch.where(torch.tensor(fits), share, 1.0).unsqueeze(1)
        mixed = [
            sample.with_media(_blend(*both, share) for both in zip(sample.media, other.media, strict=True))
            if fit
            else sample
            for (sample, other), fit in zip(pairs, fits, strict=True)
        ]
        return mixed, shares * labels + (1 - shares) * labels[torch.from_numpy(partners)]


@dataclass(frozen=True)
class ActionCollator:
    """Makes the batches that `ActionClassifier.forward` takes."""

    processor: Processor
    prompts_only: bool = True
    positions: RopePositions | None = None
    mixup: Mixup | None = None
    kind: TargetKind = "class"
    num_classes: int = 0
    """Where a clip may have several."""
    num_heads: int = 0

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """A right-padded batch; `labels` holds classes, (batch,), or, mixed, their shares, (batch, num_classes).

        Of several classes at once it holds 0 and 1, (batch, num_classes), of heads the class of each, (batch, heads),
        and of a number that, (batch,).
        """
        labels = self._labels(samples)
        if self.mixup is not None:
            samples, labels = self.mixup(samples)
        batch = self.processor.batch(samples, prompts_only=self.prompts_only) | {"labels": labels}
        return self.positions(batch) if self.positions else batch

    def _of_heads(self, sample: Sample) -> Sequence[int]:
        """The class of each; a sample that is only to be answered has 0 in the place of them."""
        found = sample.columns["labels"]
        return [found] * self.num_heads if isinstance(found, int) else found

    def _labels(self, samples: Sequence[Sample]) -> torch.Tensor:
        match self.kind:
            case "classes":
                labels = torch.zeros(len(samples), self.num_classes)
                for row, sample in enumerate(samples):
                    labels[row, sample.columns["labels"]] = 1.0
                return labels
            case "heads":
                return torch.tensor([self._of_heads(sample) for sample in samples])
            case "value":
                return torch.tensor([sample.columns["value"] for sample in samples], dtype=torch.float64)
            case _:
                return torch.tensor([sample.columns["label"] for sample in samples])


def _shapes(sample: Sample) -> list[tuple[int, ...]]:
    return [medium.frames.shape for medium in sample.media]


def _blend(first: Medium, second: Medium, share: float) -> Medium:
    blended: NDArray[np.float32] = first.frames * np.float32(share) + second.frames * np.float32(1 - share)
    return replace(first, frames=np.rint(blended).astype(np.uint8))
