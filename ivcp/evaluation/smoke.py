"""Chooses the clip that a deployment is asked for: one whose video file alone gives the prepared clip."""

from __future__ import annotations

import logging

import numpy as np

from ivcp.evaluation.predict import Clips, PredictedSplit
from ivcp.models.processor import PreparedClip
from ivcp.records.evaluation import SmokeClip
from ivcp.stages.action_cls.files import LoadedClassifier
from ivcp.video import VideoError, load_clip

log = logging.getLogger(__name__)

_TRIES = 32
"""Clips that are looked at: where a data set asks eight questions, one clip in eight has the model's own."""


def choose_smoke_clip(predicted: PredictedSplit, clips: Clips, model: LoadedClassifier) -> SmokeClip | None:
    """The surest prediction that the predictor must repeat from the video file and the model's own prompt.

    A clip that is a span of a longer video, or that was asked with another prompt, cannot be compared. Null when
    the surest predictions are all of that kind, or their videos are out of reach.
    """
    confidences = predicted.probabilities.max(axis=1, initial=0.0)
    for row in np.argsort(-confidences, kind="stable")[:_TRIES]:
        if _comes_from_its_file(clips[int(row)], model):
            label = int(predicted.predictions[row])
            return SmokeClip(
                clip_id=predicted.clip_ids[row],
                video=predicted.videos[row],
                prediction=label,
                predicted_name=model.labels.label_names[label],
                logits=tuple(float(value) for value in predicted.logits[row]),
            )
    log.warning("no clip found whose video file alone gives the same input: a deployment cannot be compared")
    return None


def _comes_from_its_file(prepared: PreparedClip, model: LoadedClassifier) -> bool:
    try:
        clip = load_clip(prepared.video, processor=model.processor)
    except VideoError as error:
        log.info("%s: %s", prepared.clip_id, error)
        return False
    input_ids, _ = model.processor.tokenize(
        model.prompt,
        frames=clip.frames,
        frame_indices=clip.frame_indices,
        source_fps=clip.source_fps,
        total_frames=clip.total_frames,
    )
    return np.array_equal(clip.frames, prepared.frames) and np.array_equal(input_ids, prepared.input_ids)
