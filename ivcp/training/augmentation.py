"""Random changes of training videos: they depend on the seed, the epoch, the sample and the draw alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ivcp.data.prepared.batches import column_of, token_lengths
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.records import Labels
from ivcp.settings import AugmentationConfig
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as transforms  # noqa: E402


class AugmentationError(ValueError):
    """An augmentation that does not fit the data; the message names the setting."""


class AugmentedSamples(Dataset[Sample]):
    """Samples with changed frames, other ones in every epoch, the same in every process and after a resume.

    Item `draw * len + position` is draw number `draw` of the sample at `position`: a sample that is taken several times
    in an epoch is changed in several ways.
    """

    def __init__(self, samples: Any, settings: AugmentationConfig, *, labels: Labels | None, seed: int) -> None:
        """`samples` is a map-style data set that keeps its frame candidates.

        Raises:
            AugmentationError: `augment_no_flip_labels` names a class that the data do not have.
        """
        names = labels.label_names if labels else ()
        unknown = sorted(set(settings.augment_no_flip_labels) - set(names))
        if unknown:
            raise AugmentationError(
                f"augment_no_flip_labels names {', '.join(unknown)}, the classes are {', '.join(names)}"
            )
        self.samples = samples
        self.settings = settings
        self.seed = seed
        self._never_flipped = {names.index(name) for name in settings.augment_no_flip_labels}
        self._starts = [outputs.start for outputs in labels.outputs_of_heads] if labels else []
        # Shared memory: worker processes that live on for the next epoch see its number.
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        draw, position = divmod(index, len(self.samples))
        sample: Sample = self.samples[position]
        rng = np.random.default_rng([self.seed, int(self._epoch), position, draw])
        may_flip = not self._classes_of(sample) & self._never_flipped
        return sample.with_media([augment(m, self.settings, may_flip=may_flip, rng=rng) for m in sample.media])

    def _classes_of(self, sample: Sample) -> set[int]:
        """Its class, or its classes, or those of its heads among all."""
        if "labels" not in sample.columns:
            return {sample.columns.get("label", -1)}
        own = sample.columns["labels"]
        return {label + start for label, start in zip(own, self._starts or [0] * len(own), strict=True)}

    def token_lengths(self, *, prompts_only: bool) -> NDArray[np.int64]:
        """Tokens of each sample, which no change of frames changes, (len(self),)."""
        return token_lengths(self.samples, prompts_only=prompts_only)

    def column(self, name: str) -> NDArray[Any]:
        """A number of each sample, (len(self),)."""
        return column_of(self.samples, name)

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of each epoch (accelerate passes it on from the trainer)."""
        self._epoch.fill_(epoch)


def augment(medium: Medium, settings: AugmentationConfig, *, may_flip: bool, rng: np.random.Generator) -> Medium:
    """The video with changed frames of the same number and size; all frames of a video change alike. A sound stays."""
    if medium.kind == "audio":
        return medium
    frames = choose_candidates(medium, rng) if settings.augment_temporal_jitter else medium.frames
    changed = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (num_frames, 3, height, width)
    if settings.augment_crop < 1:
        changed = _crop(changed, settings.augment_crop, rng)
    if may_flip and rng.random() < settings.augment_flip:
        changed = transforms.horizontal_flip(changed)
    if settings.augment_color_jitter > 0:
        changed = _jitter_colors(changed, settings.augment_color_jitter, rng)
    return replace(medium, frames=changed.permute(0, 2, 3, 1).contiguous().numpy(), frame_candidates=1)


def choose_candidates(medium: Medium, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of the stored frames around each sampled moment, (num_frames, height, width, 3)."""
    count = medium.frame_candidates
    starts = np.arange(0, len(medium.frames), count)
    chosen: NDArray[np.uint8] = medium.frames[starts + rng.integers(count, size=len(starts))]
    return chosen


def _crop(frames: torch.Tensor, smallest: float, rng: np.random.Generator) -> torch.Tensor:
    """A random window of the frames' aspect with a share of their area from `smallest` to 1, at the frames' size."""
    height, width = frames.shape[-2:]
    side = math.sqrt(rng.uniform(smallest, 1.0))
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    cropped: torch.Tensor = transforms.resized_crop(
        frames, int(top), int(left), rows, columns, [height, width], InterpolationMode.BILINEAR, antialias=True
    )
    return cropped


def _jitter_colors(frames: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    for adjust in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation):
        frames = adjust(frames, float(rng.uniform(1 - strength, 1 + strength)))
    return frames
