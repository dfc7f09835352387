"""The clips of a split that a model has not seen: only those are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from ivcp.data.prepared.reader import PreparedSamples, read_identities, read_short_sides
from ivcp.data.seen_clips import ClipIdentities, SeenClips
from ivcp.inference.loop import Samples
from ivcp.records import PreparedIndex, QuarantinedClip, Split
from ivcp.records.comparison import LeftOut
from ivcp.stages.loaded_model import LoadedModel

MOST_SEEN = 0.5
"""Share of a split that a model may have seen; above it, what is left is no test of the data any more."""


class SeenSplitError(ValueError):
    """A model has seen too much of a split to be measured on the rest; the message says what to do."""


@dataclass(frozen=True)
class SplitClips:
    """The clips of a split: those that were prepared, and those that could not be."""

    samples: Samples
    identities: ClipIdentities
    """Of the samples."""
    failed: tuple[QuarantinedClip, ...] = ()
    short_sides: NDArray[np.int32] | None = None
    """Of each sample's video in pixels, (samples,), 0 where it is not known; null where nobody asks."""

    @classmethod
    def of(cls, index: PreparedIndex, split: Split, *, verify_checksums: bool = False) -> SplitClips:
        """Those of a prepared split.

        Raises:
            ShardError: shards are missing or damaged.
            ValueError: an earlier version prepared them.
        """
        return cls(
            samples=PreparedSamples(index, split, verify_checksums=verify_checksums),
            identities=read_identities(index, split),
            failed=tuple(clip for clip in index.failed if clip.split == split),
            short_sides=read_short_sides(index, split),
        )

    def __len__(self) -> int:
        return len(self.samples) + len(self.failed)

    @property
    def all_groups(self) -> NDArray[np.uint64]:
        """What the groups of the samples and then of those that failed are known by, (clips,); 0 without a group."""
        return np.concatenate([self.identities.groups, identities_of_failed(self.failed).groups])

    @property
    def clusters(self) -> NDArray[np.uint64]:
        """What clips that resemble each other share, of the samples and then of those that failed, (clips,)."""
        contents = np.concatenate([self.identities.contents, identities_of_failed(self.failed).contents])
        return ClipIdentities(contents, self.all_groups).clusters

    def unseen_by(self, seen: SeenClips) -> UnseenClips:
        """Sorts out what a model has seen."""
        trained, chosen = _seen(self.identities, seen)
        failed_trained, failed_chosen = _seen(identities_of_failed(self.failed), seen)
        left_out = LeftOut(
            trained_on=int(trained.sum() + failed_trained.sum()),
            selected_on=int(chosen.sum() + failed_chosen.sum()),
            of=len(self),
        )
        positions = np.flatnonzero(~(trained | chosen))
        kept = self.samples
        if len(positions) < len(self.samples):
            kept = cast(Samples, Subset(cast(Any, self.samples), positions.tolist()))
        left = ~(failed_trained | failed_chosen)
        clips = SplitClips(
            samples=kept,
            identities=self.identities[positions],
            failed=tuple(clip for clip, is_left in zip(self.failed, left, strict=True) if is_left),
            short_sides=None if self.short_sides is None else self.short_sides[positions],
        )
        return UnseenClips(clips, positions, left_out)


@dataclass(frozen=True)
class UnseenClips:
    """What is left of a split."""

    clips: SplitClips
    positions: NDArray[np.int64]
    """Of its samples among those of the split, (samples,)."""
    left_out: LeftOut

    @classmethod
    def of_split(
        cls, index: PreparedIndex, split: Split, model: LoadedModel, *, verify_checksums: bool = False
    ) -> UnseenClips:
        """What is left of a prepared split for a model.

        Raises:
            ShardError: shards are missing or damaged.
            ValueError: an earlier version prepared them.
            SeenSplitError: not enough is left.
        """
        unseen = SplitClips.of(index, split, verify_checksums=verify_checksums).unseen_by(model.seen)
        unseen.check(model=str(model.directory), split=split)
        return unseen

    def check(self, *, model: str, split: Split) -> None:
        """Checks that enough is left to measure `model` on.

        Raises:
            SeenSplitError: it is not.
        """
        if self.left_out.of and (not len(self.clips) or self.left_out.total > MOST_SEEN * self.left_out.of):
            raise SeenSplitError(
                f"{model} has seen {self.left_out.words} of the {split} split, and may have seen half of it at most: "
                "the figure would say how well it remembers, not what it recognises. A test split has to be there "
                "before training: train anew with test_size or test_dataset (where all groups were given to training "
                "already, resplit: true gives them anew), or name a test_dataset of other groups and videos"
            )


def identities_of_failed(failed: Sequence[QuarantinedClip]) -> ClipIdentities:
    """What clips that could not be prepared are known by."""
    return ClipIdentities.of([(clip.video_sha256, clip.group) for clip in failed])


def _seen(clips: ClipIdentities, seen: SeenClips) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of `clips` the model was trained on, and on which of the others its checkpoint was chosen."""
    trained = clips.among(seen.trained)
    return trained, clips.among(seen.selected) & ~trained
