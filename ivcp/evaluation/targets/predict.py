"""Predicts a prepared split whose clips have another label than one class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.predict import Predict, outputs_of
from ivcp.inference.loop import Samples
from ivcp.inference.target_scores import predicted_heads, sigmoid, values_of
from ivcp.records import Labels, QuarantinedClip


@dataclass(frozen=True)
class PredictedTargets:
    """The outputs of a split's decoded clips, and the clips that could not be decoded."""

    labels: Labels
    clip_ids: tuple[str, ...]
    videos: tuple[str, ...]
    targets: NDArray[Any]
    """(n, classes) of 0 and 1; (n, heads) of classes; or (n,) of numbers."""
    outputs: NDArray[np.float32]
    """(n, outputs)"""
    failed: tuple[QuarantinedClip, ...]
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.clip_ids)

    def only(self, positions: NDArray[np.int64], *, failed: Sequence[QuarantinedClip]) -> PredictedTargets:
        """The decoded clips at `positions`, and those of `failed`."""
        return replace(
            self,
            clip_ids=tuple(self.clip_ids[position] for position in positions),
            videos=tuple(self.videos[position] for position in positions),
            targets=self.targets[positions],
            outputs=self.outputs[positions],
            failed=tuple(failed),
        )

    @property
    def failed_targets(self) -> NDArray[Any]:
        """As `targets`, of the clips that could not be decoded."""
        is_value = self.labels.kind == "value"
        return targets_of([clip.value if is_value else clip.labels for clip in self.failed], self.labels)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of classes that do not exclude each other, (n, classes)."""
        return sigmoid(self.outputs)

    @property
    def head_guesses(self) -> NDArray[np.int64]:
        """The likeliest class of each head, (n, heads)."""
        return predicted_heads(self.outputs, self.labels)

    @property
    def values(self) -> NDArray[np.float64]:
        """The predicted numbers, (n,)."""
        return values_of(self.outputs, self.labels)


def targets_of(found: Sequence[Any], labels: Labels) -> NDArray[Any]:
    """What clips are labelled with, as arrays: see `PredictedTargets.targets`."""
    match labels.kind:
        case "classes":
            targets = np.zeros((len(found), labels.num_classes), dtype=np.int64)
            for row, own in enumerate(found):
                targets[row, list(own or ())] = 1
            return targets
        case "heads":
            return np.array(list(found), dtype=np.int64).reshape(-1, len(labels.heads))
        case _:
            return np.array(list(found), dtype=np.float64)


def predict_targets(
    predict: Predict,
    samples: Samples,
    *,
    labels: Labels,
    batch_size: int,
    failed: Sequence[QuarantinedClip] = (),
    num_workers: int = 0,
    source: str = "the model",
) -> PredictedTargets:
    """Predicts every sample once, in batches, in the data set's order; `source` is what messages call the model.

    Raises:
        NonFiniteError: outputs are not finite.
    """
    started = time.monotonic()
    outputs, seen = outputs_of(
        predict,
        samples,
        num_outputs=labels.num_classes,
        batch_size=batch_size,
        num_workers=num_workers,
        source=source,
    )
    return PredictedTargets(
        labels=labels,
        clip_ids=tuple(sample.sample_id for sample in seen),
        videos=tuple(sample.source for sample in seen),
        targets=targets_of([_target(sample) for sample in seen], labels),
        outputs=outputs,
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


def _target(sample: Sample) -> Any:
    return sample.columns["value"] if "value" in sample.columns else sample.columns["labels"]
