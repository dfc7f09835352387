"""Divides groups into folds: groups stay together, and every class has the same share in each, as far as groups allow.

What scikit-learn's StratifiedGroupKFold does, by names: groups have a rank of their own, as for splits
(`ivcp.data.splits`), so that rows in another order give the same folds, and preparing needs no scikit-learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ivcp.data.splits import rank


def assign_folds(counts: Mapping[str, Counter[int]], folds: int, *, seed: int) -> dict[str, int]:
    """The fold of each group, from 0; `counts` are the rows of each label, by group.

    The largest group comes first, and each goes where its classes are rarest so far.
    """
    labels = sorted({label for rows in counts.values() for label in rows})
    column = {label: place for place, label in enumerate(labels)}
    totals = np.zeros(len(labels))
    for rows in counts.values():
        for label, number in rows.items():
            totals[column[label]] += number
    shares, clips = np.zeros((folds, len(labels))), np.zeros(folds)
    chosen: dict[str, int] = {}
    for name in sorted(counts, key=lambda name: (-counts[name].total(), rank(name, seed=seed, name="folds"))):
        own = np.zeros(len(labels))
        for label, number in counts[name].items():
            own[column[label]] = number / totals[column[label]]
        crowded = shares @ own  # by this, the sum of all squared shares grows
        fold = int(np.lexsort((clips, np.round(crowded, 12)))[0])
        shares[fold] += own
        clips[fold] += counts[name].total()
        chosen[name] = fold
    return chosen
