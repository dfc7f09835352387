"""Top-1 accuracy by duration, resolution, data set, decoder and group: a mean hides where a model fails."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.unseen import SplitClips
from ivcp.records.predictions import ClipFacts
from ivcp.records.slices import Slice, SliceKind

MOST_GROUPS = 50
"""Groups that are told one by one; of more, none is."""
NOT_KNOWN, NOT_DECODED = "not known", "not decoded"
_SECONDS = (2, 5, 10, 30, 60)
_PIXELS = (240, 480, 720, 1080)
"""Where slices end: durations in seconds, shorter sides in pixels."""


def facts_of(predicted: PredictedSplit, clips: SplitClips) -> list[ClipFacts]:
    """What there is to say of the clips of a predicted split: the decoded ones, then those that failed."""
    groups = [f"{group:016x}" if group else "" for group in clips.all_groups.tolist()]
    sides = (
        [None] * len(clips.samples) if clips.short_sides is None else [s or None for s in clips.short_sides.tolist()]
    )
    decoded = [
        ClipFacts(dataset=clip_id.rpartition(":")[0], group=group, seconds=seconds, short_side=side, backend=backend)
        for clip_id, group, seconds, side, backend in zip(
            predicted.clip_ids,
            groups[: len(predicted.clip_ids)],
            predicted.seconds_of_clips,
            sides,
            predicted.backends,
            strict=True,
        )
    ]
    failed = zip(predicted.failed, groups[len(decoded) :], strict=True)
    return decoded + [ClipFacts(dataset=clip.clip_id.rpartition(":")[0], group=group) for clip, group in failed]


def measure_slices(
    hits: NDArray[np.bool_], facts: Sequence[ClipFacts], *, clusters: NDArray[np.uint64], videos: Sequence[str]
) -> tuple[Slice, ...]:
    """Every kind of slice of the same clips.

    Args:
        hits: whether each clip was recognised, (clips,); one that failed was not.
        facts: of each.
        clusters: what clips that resemble each other share, (clips,).
        videos: where each lies: a group is called after its first one.
    """
    found: list[Slice] = []
    for kind, name_of in _NAMES.items():
        names = [name_of(fact) for fact in facts]
        order = dict.fromkeys(sorted(names)) if kind == "dataset" else _ORDER.get(kind, dict.fromkeys(names))
        found += _of_kind(kind, names, list(order), hits, clusters)
    groups = [fact.group for fact in facts]
    if 1 < len(set(groups)) <= MOST_GROUPS and all(groups):
        first = dict(reversed(list(zip(groups, videos, strict=True))))
        named = [f"{group[:6]} ({first[group].rpartition('/')[2]}, …)" for group in groups]
        found += _of_kind("group", named, list(dict.fromkeys(named)), hits, clusters)
    return tuple(found)


def _of_kind(
    kind: SliceKind, names: Sequence[str], order: Sequence[str], hits: NDArray[np.bool_], clusters: NDArray[np.uint64]
) -> list[Slice]:
    found, of_clips = [], np.array(names)
    for name in order:
        chosen = of_clips == name
        if chosen.any():
            resamples = Resamples(clusters[chosen])
            found.append(
                Slice(
                    kind=kind,
                    name=name,
                    num_clips=int(chosen.sum()),
                    num_right=int(hits[chosen].sum()),
                    top1_accuracy=float(hits[chosen].mean()),
                    interval=resamples.share(hits[chosen]) if resamples.num_groups > 1 else None,
                )
            )
    return found


def _bins(ends: Sequence[int], unit: str) -> list[str]:
    between = [f"{low} – {high} {unit}" for low, high in pairwise(ends)]
    return [f"below {ends[0]} {unit}", *between, f"{ends[-1]} {unit} and more"]


_DURATIONS, _RESOLUTIONS = _bins(_SECONDS, "s"), _bins(_PIXELS, "px")


def _duration(fact: ClipFacts) -> str:
    return NOT_DECODED if fact.seconds is None else _DURATIONS[bisect_right(_SECONDS, fact.seconds)]


def _resolution(fact: ClipFacts) -> str:
    return NOT_KNOWN if fact.short_side is None else _RESOLUTIONS[bisect_right(_PIXELS, fact.short_side)]


_NAMES: dict[SliceKind, Callable[[ClipFacts], str]] = {
    "dataset": lambda fact: fact.dataset,
    "duration": _duration,
    "resolution": _resolution,
    "decoding": lambda fact: fact.backend or NOT_DECODED,
}
_ORDER = {
    "duration": dict.fromkeys([*_DURATIONS, NOT_DECODED]),
    "resolution": dict.fromkeys([*_RESOLUTIONS, NOT_KNOWN]),
}
