"""One fold of prepared clips: the same shards and the same table, divided anew."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from ivcp.data.folds import assign_folds
from ivcp.data.prepared.reader import PreparedSamples, read_identities
from ivcp.data.problems import AnnotationError
from ivcp.data.seen_clips import ClipIdentities
from ivcp.data.splits import cut_split
from ivcp.records import Fold, PreparedIndex, QuarantinedClip, Split
from ivcp.settings import RunConfig
from ivcp.video.perceptual import join_pairs

log = logging.getLogger(__name__)


def of_fold(index: PreparedIndex, config: RunConfig) -> PreparedIndex:
    """The index of the fold that the settings name, where they name one; else `index` as it is.

    Clips that share a group or a video's content are in one fold, those that could not be decoded as well: they are
    errors of the fold that tests their group.

    Raises:
        AnnotationError: a fold would have a class to test that it has no clip to learn from.
    """
    folds, number = config.protocol.folds, config.protocol.fold
    if folds is None or number is None:
        return index
    failed = [clip for clip in index.failed if clip.split == "train"]
    labels = np.concatenate(
        [
            PreparedSamples(index, "train").column("label").astype(np.int64),
            np.array([-1 if clip.label is None else clip.label for clip in failed], dtype=np.int64),
        ]
    )
    units = _units(
        _joined(read_identities(index, "train"), ClipIdentities.of([(c.video_sha256, c.group) for c in failed]))
    )
    splits = _splits(labels, units, config, folds=folds, number=number)
    decoded, of_failed = splits[: len(splits) - len(failed)], splits[len(splits) - len(failed) :]
    fold = Fold(number=number, of=folds, test=_places(decoded, "test"), val=_places(decoded, "val"))
    return _described(index, fold, decoded, labels, dict(zip((c.clip_id for c in failed), of_failed, strict=True)))


def _splits(
    labels: NDArray[np.int64], units: NDArray[np.uint64], config: RunConfig, *, folds: int, number: int
) -> NDArray[np.str_]:
    """The split of each clip in fold `number`, from 1: (clips,)."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for unit, label in zip(units.tolist(), labels.tolist(), strict=True):
        counts[str(unit)][label] += 1
    fold_of = assign_folds(counts, folds, seed=config.data_seed)
    rest = {unit: rows for unit, rows in counts.items() if fold_of[unit] != number - 1}
    split_of: dict[str, Split] = {unit: "train" if unit in rest else "test" for unit in counts}
    size = config.data.val_size
    if size:
        wanted = max(1, round(size * len(labels))) if size < 1 else size
        chosen = cut_split(rest, wanted, seed=config.data_seed, name="val_size", asked=size)
        split_of |= dict.fromkeys(chosen, "val")
    return np.array([split_of[str(unit)] for unit in units.tolist()])


def _units(identities: ClipIdentities) -> NDArray[np.uint64]:
    """What stays together: clips that are joined by groups or contents have the same number, (clips,)."""
    owners = np.arange(len(identities))
    first, pairs = len(owners), []
    for of_kind, values in (
        (owners, identities.groups),
        (np.concatenate([owners, identities.more_of]), identities.all_contents),
    ):
        known, places = np.unique(values[values != 0], return_inverse=True)
        pairs.append(np.stack([of_kind[values != 0], first + places.reshape(-1)], axis=1))
        first += len(known)
    names = np.where(identities.groups != 0, identities.groups, identities.contents)
    units = names.copy()
    for joined in join_pairs(map(tuple, np.concatenate(pairs).tolist())):
        clips = [node for node in joined if node < len(owners)]
        units[clips] = names[clips].min()
    return units


def _joined(clips: ClipIdentities, others: ClipIdentities) -> ClipIdentities:
    """Both, one behind the other."""
    return ClipIdentities(
        np.concatenate([clips.contents, others.contents]),
        np.concatenate([clips.groups, others.groups]),
        clips.more_of,
        clips.more,
    )


def _places(splits: NDArray[np.str_], split: Split) -> tuple[int, ...]:
    return tuple(np.flatnonzero(splits == split).tolist())


def _described(
    index: PreparedIndex, fold: Fold, splits: NDArray[np.str_], labels: NDArray[np.int64], failed: dict[str, Split]
) -> PreparedIndex:
    """The index with what there is to say of the fold; `splits` are of the decoded clips, `failed` of the others."""
    of_decoded = labels[: len(splits)]
    counts: dict[Split, tuple[int, ...]] = dict(index.label_counts)
    for split in ("train", "test", *(("val",) if fold.val else ())):
        found = np.bincount(of_decoded[splits == split], minlength=index.classes.num_classes)
        counts[split] = tuple(found.tolist())
    names = index.classes.label_names
    untaught = [names[label] for label in np.unique(of_decoded).tolist() if not counts["train"][label]]
    if untaught:
        raise AnnotationError(
            f"{fold.name} has no training clip of {', '.join(untaught)}: too few groups of it could be decoded; add "
            "some, or set fewer folds"
        )

    def placed(clip: QuarantinedClip) -> QuarantinedClip:
        return clip.model_copy(update={"split": failed[clip.clip_id]}) if clip.clip_id in failed else clip

    described = f"{index.fingerprint} {fold.model_dump_json()}"
    changed = index.model_copy(
        update={
            "fold": fold,
            "fingerprint": hashlib.sha256(described.encode()).hexdigest(),
            "num_clips": {split: sum(number) for split, number in counts.items()},
            "label_counts": counts,
            "failed": tuple(placed(clip) for clip in index.failed),
        }
    )
    log.info("%s: %s", fold.name, ", ".join(f"{number} {split}" for split, number in changed.num_clips.items()))
    return changed
