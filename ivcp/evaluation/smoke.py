"""Chooses the clip that checks a deployment: one that can be prepared again from its video file alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.predict import PredictedSplit
from ivcp.inference.loop import Samples
from ivcp.records.evaluation import SmokeClip
from ivcp.stages.loaded_model import LoadedModel
from ivcp.video import VideoError, load_clip

log = logging.getLogger(__name__)

_TRIES = 8
"""Clips that are looked at."""


def choose_smoke_clip(predicted: PredictedSplit, samples: Samples, model: LoadedModel) -> SmokeClip | None:
    """The surest prediction that the predictor must repeat from the video file and the model's own prompt.

    A clip that is a span of a longer video cannot be compared. Null when the surest predictions are all of that kind,
    or their videos are out of reach.
    """
    confidences = predicted.probabilities.max(axis=1, initial=0.0)
    row = find_smoke_clip(np.argsort(-confidences, kind="stable").tolist(), samples, model)
    if row is None:
        return None
    label = int(predicted.predictions[row])
    return SmokeClip(
        clip_id=predicted.clip_ids[row],
        video=predicted.videos[row],
        prediction=label,
        predicted_name=model.labels.label_names[label],
        logits=tuple(float(value) for value in predicted.logits[row]),
    )


def find_smoke_clip(rows: Sequence[int], samples: Samples, model: LoadedModel) -> int | None:
    """The first of some rows whose video file alone gives the same input; null where none of the first few does."""
    for row in rows[:_TRIES]:
        if comes_from_its_file(samples[row], model):
            return row
    log.warning("no clip found whose video file alone gives the same input: a deployment cannot be compared")
    return None


def comes_from_its_file(sample: Sample, model: LoadedModel) -> bool:
    """Whether the whole video file of a sample gives the same frames."""
    try:
        clip = load_clip(sample.source, processor=model.processor)
    except VideoError as error:
        log.info("%s: %s", sample.sample_id, error)
        return False
    return np.array_equal(clip.frames, sample.media[0].frames)
