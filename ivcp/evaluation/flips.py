"""Two classifiers clip by clip: where only one is right, and whether that could be chance."""

from __future__ import annotations

import numpy as np

from ivcp.evaluation.predict import PredictedSplit
from ivcp.records import Labels
from ivcp.records.evaluation import ClassFlips, Flip, Flips

_SHOWN = 50


def compare_answers(new: PredictedSplit, champion: PredictedSplit, labels: Labels) -> Flips:
    """Where the answers of the new model and the champion's differ, on the same decoded clips in the same order.

    Raises:
        ValueError: they are not of the same clips.
    """
    from scipy.stats import binomtest

    if new.clip_ids != champion.clip_ids:
        raise ValueError("the new model and the champion were not measured on the same clips in the same order")
    names, truth = labels.label_names, new.labels
    ours, theirs = new.predictions == truth, champion.predictions == truth
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
            )
            for label in np.unique(truth[gained | lost])
        ),
        clips=tuple(
            Flip(
                clip_id=new.clip_ids[row],
                video=new.videos[row],
                label_name=names[truth[row]],
                champion_name=names[champion.predictions[row]],
                new_name=names[new.predictions[row]],
            )
            for row in (*np.flatnonzero(lost), *np.flatnonzero(gained))[:_SHOWN]
        ),
    )
