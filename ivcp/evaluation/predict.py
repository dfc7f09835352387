"""Predicts a prepared split, as it is or with disturbed frames."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Sample
from ivcp.inference.finite import check_finite_outputs
from ivcp.inference.loop import Samples, batches_of
from ivcp.records import Labels, Prediction, QuarantinedClip
from ivcp.records.evaluation import Disturbance
from ivcp.records.predictions import ClipFacts


class Predict(Protocol):
    """Logits of samples, batch by batch, as `ivcp.stages.loaded_model.LoadedModel.predict` gives them."""

    def __call__(
        self, samples: Samples, batches: Iterable[Sequence[int]], *, num_workers: int = 0
    ) -> Iterator[tuple[torch.Tensor, Sequence[Sample]]]:
        """Of each batch: logits, (batch, classes), and its samples, which need no pixels."""


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
    temperature: float = 1.0
    """What logits are divided by where they become probabilities."""
    seconds_of_clips: tuple[float, ...] = ()
    """How long each decoded clip lasts; empty where nobody asks."""
    backends: tuple[str | None, ...] = ()
    """What decoded each, as `Medium.backend`; empty where nobody asks."""

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The class of the largest logit, (n,)."""
        return self.logits.argmax(axis=1) if len(self.logits) else np.zeros(0, dtype=np.int64)

    def only(self, positions: NDArray[np.int64], *, failed: Sequence[QuarantinedClip]) -> PredictedSplit:
        """The decoded clips at `positions`, and those of `failed`."""
        return replace(
            self,
            clip_ids=tuple(self.clip_ids[position] for position in positions),
            videos=tuple(self.videos[position] for position in positions),
            num_frames=self.num_frames[positions],
            labels=self.labels[positions],
            logits=self.logits[positions],
            failed=tuple(failed),
            seconds_of_clips=tuple(self.seconds_of_clips[position] for position in positions if self.seconds_of_clips),
            backends=tuple(self.backends[position] for position in positions if self.backends),
        )

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits at the temperature, (n, num_classes)."""
        return softmax(self.logits.astype(np.float64) / self.temperature)


def predict_split(
    predict: Predict,
    samples: Samples,
    *,
    num_classes: int,
    batch_size: int,
    failed: Sequence[QuarantinedClip] = (),
    disturb: Disturbance | None = None,
    seed: int = 0,
    num_workers: int = 0,
    source: str = "the model",
) -> PredictedSplit:
    """Predicts every sample once, in batches, in the data set's order; `source` is what messages call the model.

    Raises:
        NonFiniteError: logits are not finite: the class of the largest NaN would be class 0.
    """
    started = time.monotonic()
    shown = Disturbed(samples, disturb, seed) if disturb else samples
    logits, seen = outputs_of(
        predict, shown, num_outputs=num_classes, batch_size=batch_size, num_workers=num_workers, source=source
    )
    return PredictedSplit(
        clip_ids=tuple(sample.sample_id for sample in seen),
        videos=tuple(sample.source for sample in seen),
        num_frames=np.array([sum(len(m.frames) for m in sample.media) for sample in seen], dtype=np.int64),
        labels=np.array([sample.columns["label"] for sample in seen], dtype=np.int64),
        logits=logits,
        failed=tuple(failed),
        seconds=time.monotonic() - started,
        seconds_of_clips=tuple(sample.media[0].total_frames / sample.media[0].source_fps for sample in seen),
        backends=tuple(sample.media[0].backend for sample in seen),
    )


def outputs_of(
    predict: Predict, samples: Samples, *, num_outputs: int, batch_size: int, num_workers: int, source: str
) -> tuple[NDArray[np.float32], list[Sample]]:
    """The model's outputs for every sample, (samples, num_outputs), and the samples without pixels, in their order.

    Raises:
        NonFiniteError: outputs are not finite.
    """
    found: list[torch.Tensor] = []
    seen: list[Sample] = []
    for of_batch, in_batch in predict(samples, batches_of(len(samples), batch_size), num_workers=num_workers):
        found.append(of_batch)
        seen.extend(in_batch)
    outputs = torch.cat(found) if found else torch.zeros(0, num_outputs)
    check_finite_outputs(outputs, lambda row: f"{seen[row].sample_id} ({seen[row].source})", source=source)
    return outputs.numpy(), seen


@dataclass(frozen=True)
class Disturbed:
    """Samples whose frames are reversed, shuffled (the same way in every run), or all replaced by the middle one."""

    samples: Samples
    kind: Disturbance
    seed: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Sample:
        sample = self.samples[position]
        orders = [self._order(sample, len(medium.frames)) for medium in sample.media]
        return sample.with_media(
            replace(medium, frames=medium.frames[order]) for medium, order in zip(sample.media, orders, strict=True)
        )

    def _order(self, sample: Sample, num_frames: int) -> NDArray[np.int64]:
        match self.kind:
            case "reversed":
                return np.arange(num_frames)[::-1]
            case "shuffled":
                return np.random.default_rng([self.seed, zlib.crc32(sample.sample_id.encode())]).permutation(num_frames)
            case "middle":
                return np.full(num_frames, num_frames // 2)
            case _:
                assert_never(self.kind)


def prediction_rows(
    predicted: PredictedSplit, labels: Labels, facts: Sequence[ClipFacts] | None = None
) -> list[Prediction]:
    """The rows of `predictions.jsonl`: decoded clips in the data set's order, then those that failed.

    `facts` are of both, in that order; null where they are not known.
    """
    names = labels.label_names
    known: Sequence[ClipFacts | None] = facts or [None] * (len(predicted.labels) + len(predicted.failed))
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
            facts=fact,
        )
        for clip_id, video, label, guess, shares, row, fact in zip(
            predicted.clip_ids,
            predicted.videos,
            predicted.labels,
            predicted.predictions,
            predicted.probabilities,
            predicted.logits,
            known[: len(predicted.labels)],
            strict=True,
        )
    ]
    return decoded + [
        Prediction(
            clip_id=clip.clip_id,
            video=clip.video,
            label=clip.label,
            prediction=None,
            label_name=None if clip.label is None else names[clip.label],
            predicted_name=None,
            confidence=0.0,
            logits=(),
            facts=fact,
        )
        for clip, fact in zip(predicted.failed, known[len(predicted.labels) :], strict=True)
    ]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits, over the last axis."""
    if not logits.size:
        return logits
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
