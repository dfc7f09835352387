"""Runs the vision tower over prepared clips, many clips a pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ivcp.data.prepared.reader import PreparedClips
from ivcp.distributed.processes import Processes
from ivcp.models.backbone import language_model_of
from ivcp.models.processor import CachedClip, ClipProcessor, PreparedClip
from ivcp.models.vision.features import FEATURE_PREFIX, encode_clips, split_rows
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.tracking.progress import with_progress

_TOKENS_PER_PASS = 8192
"""Prompt tokens of the clips of one pass: enough to fill a GPU, some GB of activations at most."""
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest distance of a state with kept features from the live one, relative to its length."""

Stored = dict[str, Tensor]
"""What is kept of a clip: see `FEATURE_PREFIX`."""


class UnlikeLiveError(RuntimeError):
    """Kept features do not give the state at the action token that pixels give."""


class VisionEncoder:
    """Makes what is kept of clips, with the tower and in the precision of a run."""

    def __init__(
        self, classifier: ActionClassifier, processor: ClipProcessor, processes: Processes, *, num_workers: int
    ) -> None:
        self._classifier, self._processor, self._processes = classifier, processor, processes
        self._num_workers = num_workers
        self._is_checked = False

    def encode(self, clips: PreparedClips, positions: Sequence[int]) -> Iterator[Stored]:
        """What is kept of the clips at `positions`, in their order, on the CPU; leaves the random state as it was.

        Raises:
            UnlikeLiveError: features of the first clips do not give the states that their pixels give.
            InseparableFeaturesError: the tower's output cannot be divided among the clips.
        """
        batches = list(_passes(positions, clips.token_lengths()))
        self._classifier.to(self._processes.device).eval()
        with torch.random.fork_rng():  # a loader draws its workers' seed
            loader = iter(
                DataLoader(
                    clips,
                    batch_sampler=batches,
                    collate_fn=PixelCollator(self._processor),
                    num_workers=self._num_workers,
                )
            )
        if not self._is_checked:
            self._check_against_live([clips[position] for position in batches[0][:2]])
            self._is_checked = True
        passes: Iterable[Any] = with_progress(loader, total=len(batches), what="vision passes")
        return (stored for made in passes for stored in self._encode(*made))

    @torch.no_grad()
    def _encode(self, inputs: dict[str, Tensor], num_tokens: list[int], num_frames: list[int]) -> list[Stored]:
        with self._processes.autocast():
            model = language_model_of(self._classifier.backbone)
            clips = encode_clips(model, self._processes.to_device(inputs), num_tokens)
        stored = [{FEATURE_PREFIX + path: tensor.cpu() for path, tensor in clip.items()} for clip in clips]
        for name in (name for name in inputs if not name.startswith("pixel_")):
            for clip, rows in zip(stored, split_rows(inputs[name], num_tokens, num_frames), strict=True):
                clip[name] = rows
        return stored

    def _check_against_live(self, clips: Sequence[PreparedClip]) -> None:
        """A model that takes features but uses them in another way must not be trained on them."""
        stored = self._encode(*PixelCollator(self._processor)(clips))
        kept = [CachedClip(**vars(clip), tensors=tensors) for clip, tensors in zip(clips, stored, strict=True)]
        live = self._states(self._processor.collate(clips))
        distance = ((self._states(self._processor.collate(kept)) - live).norm() / live.norm()).item()
        dtype = self._processes.autocast_dtype or self._classifier.config.dtype
        if not distance <= _TOLERANCE[dtype]:
            raise UnlikeLiveError(
                f"{type(language_model_of(self._classifier.backbone)).__name__} gives other states with kept features "
                f"than with pixels (relative distance {distance:.2g})"
            )

    @torch.no_grad()
    def _states(self, batch: dict[str, Any]) -> Tensor:
        inputs = self._processes.to_device({name: value for name, value in batch.items() if name != "labels"})
        with self._processes.autocast():
            return self._classifier.action_states(**inputs).float()


class PixelCollator:
    """The tower's inputs of clips, and the vision tokens and frames of each."""

    def __init__(self, processor: ClipProcessor) -> None:
        self.processor = processor

    def __call__(self, clips: Sequence[PreparedClip]) -> tuple[dict[str, Tensor], list[int], list[int]]:
        """The pixel inputs of a batch, and (batch,) counts of tokens and of frames."""
        num_tokens = [int(np.count_nonzero(clip.mm_token_type_ids)) for clip in clips]
        frames = [clip.frames for clip in clips]
        return self.processor.pixel_inputs(frames), num_tokens, [len(clip) for clip in frames]


def _passes(positions: Sequence[int], lengths: NDArray[np.int64]) -> Iterator[list[int]]:
    """Divides positions into runs of at most `_TOKENS_PER_PASS` tokens, or of one clip."""
    batch: list[int] = []
    num_tokens = 0
    for position in positions:
        if batch and num_tokens + lengths[position] > _TOKENS_PER_PASS:
            yield batch
            batch, num_tokens = [], 0
        batch.append(position)
        num_tokens += int(lengths[position])
    if batch:
        yield batch
