"""Intervals of figures by the bootstrap, over groups of clips.

Clips of one group (a performer, a recording) resemble each other: an interval that takes them for independent is too
narrow. Resamples are of whole groups, as Davison and Hinkley describe it ("Bootstrap Methods and their Application",
1997, 3.8), and percentiles are widened for few groups after Hesterberg ("What Teachers Should Know About the
Bootstrap", 2015, 5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest, norm, t

from ivcp.records.baselines import Interval

_LEVEL = 0.95
_NUM_RESAMPLES = 2000
_MOST_NUMBERS = 1_000_000
"""Draws of groups that are in memory at once."""


@dataclass(frozen=True)
class Resamples:
    """Resamples of the clips of a split by their groups; the same ones whenever the groups are the same."""

    groups: NDArray[Any]
    """Of each clip, (clips,): equal values are one group."""

    @cached_property
    def _group_of(self) -> NDArray[np.int64]:
        return np.unique(self.groups, return_inverse=True)[1].reshape(-1)

    @property
    def num_groups(self) -> int:
        """Groups that there are."""
        return int(self._group_of.max(initial=-1)) + 1

    def sums(self, columns: csr_array) -> NDArray[np.float64]:
        """Sums of clip-wise numbers, (clips, columns), over the clips of each resample: (resamples, columns)."""
        count, clips = self.num_groups, len(self.groups)
        members = csr_array((np.ones(clips), (self._group_of, np.arange(clips))), shape=(count, clips))
        by_group = csr_array((members @ columns).T)
        return np.concatenate([(by_group @ times.T).T for times in self._draws()])

    def times_of_clips(self) -> Iterator[NDArray[np.int64]]:
        """How often each clip is in each resample, (some resamples, clips), until all resamples were there."""
        for times in self._draws(numbers_each=len(self.groups)):
            yield times[:, self._group_of]

    def _draws(self, numbers_each: int = 0) -> Iterator[NDArray[np.int64]]:
        """How often each group is in each resample, (some resamples, groups); so few that `numbers_each` fit, too."""
        count = self.num_groups
        random = np.random.default_rng(0)
        at_once = max(1, _MOST_NUMBERS // max(count, numbers_each))
        for start in range(0, _NUM_RESAMPLES, at_once):
            number = min(at_once, _NUM_RESAMPLES - start)
            drawn = random.integers(0, count, (number, count)) + count * np.arange(number)[:, None]
            yield np.bincount(drawn.reshape(-1), minlength=number * count).reshape(number, count)

    def share(self, hits: NDArray[np.bool_]) -> Interval | None:
        """Of the share of right answers; `hits` are of each clip, (clips,). Null where there are no clips.

        Where it is the same in each group, as where all are right, resamples do not differ: the groups then count as
        so many independent clips, by Wilson's interval.
        """
        if not len(hits):
            return None
        found = self._mean(hits.astype(np.float64))
        if found is not None:
            return found
        right = round(float(hits.mean()) * self.num_groups)
        exact = binomtest(right, self.num_groups).proportion_ci(_LEVEL, method="wilson")
        return Interval(low=float(exact.low), high=float(exact.high))

    def mean_share(self, draws: NDArray[np.bool_]) -> Interval | None:
        """Of the mean share of several draws, (draws, clips), of answers to the same clips."""
        return self.share(draws[0]) if len(draws) == 1 else self._mean(draws.mean(axis=0))

    def difference(self, hits: NDArray[np.bool_], others: NDArray[Any]) -> Interval | None:
        """Of the difference of two shares of right answers on the same clips, `others` as truths or as shares of
        draws; null where it is the same for each group."""
        return self._mean(hits.astype(np.float64) - others) if len(hits) else None

    def mean_recall(self, truth: NDArray[np.int64], hits: NDArray[np.bool_]) -> Interval | None:
        """Of the mean over classes of the share of right answers; `truth` are the classes of the clips, (clips,)."""
        if not len(truth):
            return None
        rows, shape = np.arange(len(truth)), (len(truth), int(truth.max()) + 1)
        right = self.sums(csr_array((hits.astype(np.float64), (rows, truth)), shape=shape))
        support = self.sums(csr_array((np.ones(len(truth)), (rows, truth)), shape=shape))
        with np.errstate(invalid="ignore"):
            return self._between(np.nanmean(right / support, axis=1))

    def mean(self, values: NDArray[np.float64]) -> Interval | None:
        """Of the mean of numbers of the clips, (clips,); null where there are none, or it is the same in each group."""
        return self._mean(values) if len(values) else None

    def between(self, found: NDArray[np.float64]) -> Interval | None:
        """Of a figure that was computed of each resample, (resamples,); NaN where it is not defined."""
        found = found[np.isfinite(found)]
        return self._between(found) if len(found) and self.num_groups > 1 else None

    def _mean(self, values: NDArray[np.float64]) -> Interval | None:
        sums = self.sums(csr_array(np.stack([values, np.ones_like(values)], axis=1)))
        return self._between(sums[:, 0] / sums[:, 1])

    def _between(self, found: NDArray[np.float64]) -> Interval | None:
        """The percentiles; null where all are the same."""
        if np.ptp(found) == 0:
            return None
        count = self.num_groups
        tail = (1 - _LEVEL) / 2
        widened = float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf(tail, count - 1)))
        low, high = np.quantile(found, [widened, 1 - widened])
        return Interval(low=float(low), high=float(high))
