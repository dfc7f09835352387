"""Two classifiers clip by clip: where only one is right, and whether that could be chance."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.recorded import EVALUATION_FOLDER
from ivcp.records import PREDICTIONS_FILE, Labels, Prediction
from ivcp.records.comparison import ClassFlips, Flip, Flips
from ivcp.records.record import read_lines
from ivcp.records.registered import Champion
from ivcp.tracking.artifacts import fetch_run_file

_SHOWN = 50


def answers_of(predicted: PredictedSplit) -> dict[str, int]:
    """The predicted label of each decoded clip, by its id."""
    return {clip_id: int(guess) for clip_id, guess in zip(predicted.clip_ids, predicted.predictions, strict=True)}


def recorded_answers(champion: Champion, uri: str) -> dict[str, int] | None:
    """The same of a champion, as its evaluation logged it to the MLflow store `uri`; null where it is not to be had."""
    if champion.run_id is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = fetch_run_file(champion.run_id, f"{EVALUATION_FOLDER}/{PREDICTIONS_FILE}", uri, Path(folder))
        rows = [] if file is None else read_lines(file, Prediction)
    return {row.clip_id: row.prediction for row in rows if row.prediction is not None} or None


def compare_answers(new: PredictedSplit, champion: Mapping[str, int], labels: Labels) -> Flips:
    """Where the answers of the new model and the champion's differ; `champion` has its label for each decoded clip.

    Raises:
        ValueError: it has none for a clip.
    """
    from scipy.stats import binomtest

    if missing := [clip_id for clip_id in new.clip_ids if clip_id not in champion]:
        raise ValueError(f"the champion has no answer for {len(missing)} of the new model's clips: {missing[0]}")
    names, truth = labels.label_names, new.labels
    answers = np.array([champion[clip_id] for clip_id in new.clip_ids], dtype=np.int64)
    ours, theirs = new.predictions == truth, answers == truth
    gained, lost = ours & ~theirs, theirs & ~ours
    num_gained, num_lost = int(gained.sum()), int(lost.sum())
    differing = num_gained + num_lost
    return Flips(
        num_clips=len(truth),
        num_gained=num_gained,
        num_lost=num_lost,
        p_value=float(binomtest(num_gained, differing, 0.5).pvalue) if differing else 1.0,
        classes=tuple(
            ClassFlips(
                label_name=names[label],
                num_gained=int(gained[truth == label].sum()),
                num_lost=int(lost[truth == label].sum()),
                num_clips=int((truth == label).sum()),
            )
            for label in np.unique(truth[gained | lost])
        ),
        clips=tuple(
            Flip(
                clip_id=new.clip_ids[row],
                video=new.videos[row],
                label_name=names[truth[row]],
                champion_name=names[answers[row]],
                new_name=names[new.predictions[row]],
            )
            for row in (*np.flatnonzero(lost), *np.flatnonzero(gained))[:_SHOWN]
        ),
    )
