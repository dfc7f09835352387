"""Predicts a prepared split, as it is or with disturbed frames."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.models.processor import PreparedClip
from ivcp.records import Labels, Prediction, QuarantinedClip
from ivcp.records.evaluation import Disturbance

log = logging.getLogger(__name__)

Logits = Callable[[Sequence[PreparedClip]], torch.Tensor]
"""Class logits of a batch of clips, (clips, classes)."""

_SECONDS_BETWEEN_LOG_LINES = 30.0


class Clips(Protocol):
    """A map-style data set of prepared clips."""

    def __len__(self) -> int:
        """Number of clips."""

    def __getitem__(self, position: int) -> PreparedClip:
        """One clip."""


@dataclass(frozen=True)
class PredictedSplit:
    """The logits of a split's decoded clips, and the clips that could not be decoded."""

    clip_ids: tuple[str, ...]
    videos: tuple[str, ...]
    num_frames: NDArray[np.int64]
    """(n,)"""
    labels: NDArray[np.int64]
    """(n,)"""
    logits: NDArray[np.float32]
    """(n, num_classes)"""
    failed: tuple[QuarantinedClip, ...]
    seconds: float

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The class of the largest logit, (n,)."""
        return self.logits.argmax(axis=1) if len(self.logits) else np.zeros(0, dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, (n, num_classes)."""
        return softmax(self.logits)


def predict_split(
    logits: Logits,
    clips: Clips,
    *,
    num_classes: int,
    batch_size: int,
    failed: Sequence[QuarantinedClip] = (),
    disturb: Disturbance | None = None,
    seed: int = 0,
) -> PredictedSplit:
    """Predicts every clip once, in batches, in the data set's order."""
    started = last_line = time.monotonic()
    batches: list[torch.Tensor] = []
    seen: list[PreparedClip] = []
    for start in range(0, len(clips), batch_size):
        batch = [clips[position] for position in range(start, min(start + batch_size, len(clips)))]
        seen.extend(replace(clip, frames=clip.frames[:, :0, :0]) for clip in batch)  # all but the pixels
        batches.append(logits([disturbed(clip, disturb, seed=seed) for clip in batch] if disturb else batch))
        if time.monotonic() - last_line > _SECONDS_BETWEEN_LOG_LINES:
            last_line = time.monotonic()
            log.info("predicted %d of %d clips", len(seen), len(clips))
    return PredictedSplit(
        clip_ids=tuple(clip.clip_id for clip in seen),
        videos=tuple(clip.video for clip in seen),
        num_frames=np.array([len(clip.frames) for clip in seen], dtype=np.int64),
        labels=np.array([clip.label for clip in seen], dtype=np.int64),
        logits=torch.cat(batches).numpy() if batches else np.zeros((0, num_classes), dtype=np.float32),
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


def disturbed(clip: PreparedClip, kind: Disturbance, *, seed: int = 0) -> PreparedClip:
    """The clip with its frames reversed, shuffled (the same way in every run), or all replaced by the middle one."""
    frames = clip.frames
    match kind:
        case "reversed":
            order = np.arange(len(frames))[::-1]
        case "shuffled":
            order = np.random.default_rng([seed, zlib.crc32(clip.clip_id.encode())]).permutation(len(frames))
        case "middle":
            order = np.full(len(frames), len(frames) // 2)
        case _:
            assert_never(kind)
    return replace(clip, frames=frames[order])


def prediction_rows(predicted: PredictedSplit, labels: Labels) -> list[Prediction]:
    """The rows of `predictions.jsonl`: decoded clips in the data set's order, then those that failed."""
    names = labels.label_names
    decoded = [
        Prediction(
            clip_id=clip_id,
            video=video,
            label=int(label),
            prediction=int(guess),
            label_name=names[label],
            predicted_name=names[guess],
            confidence=float(shares[guess]),
            logits=tuple(float(value) for value in row),
        )
        for clip_id, video, label, guess, shares, row in zip(
            predicted.clip_ids,
            predicted.videos,
            predicted.labels,
            predicted.predictions,
            predicted.probabilities,
            predicted.logits,
            strict=True,
        )
    ]
    return decoded + [
        Prediction(
            clip_id=clip.clip_id,
            video=clip.video,
            label=clip.label,
            prediction=None,
            label_name=names[clip.label],
            predicted_name=None,
            confidence=0.0,
            logits=(),
        )
        for clip in predicted.failed
    ]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of logits, over the last axis."""
    if not logits.size:
        return logits.astype(np.float64)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
