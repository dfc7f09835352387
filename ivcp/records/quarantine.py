"""How many clips may be unusable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ivcp.records.annotations import QuarantinedClip

_MOST_EXAMPLES = 10


class UnusableVideosError(ValueError):
    """More videos cannot be used than `max_invalid_fraction` allows; the message counts the reasons."""


def check_invalid_fraction(
    quarantined: Sequence[QuarantinedClip], *, num_rows: int, max_invalid_fraction: float, listed_in: str
) -> None:
    """Checks the share of unusable rows; `listed_in` says where all of them stand.

    Raises:
        UnusableVideosError: it is above `max_invalid_fraction`.
    """
    check_invalid_counts(
        Counter(clip.reason for clip in quarantined),
        examples=quarantined[:_MOST_EXAMPLES],
        num_rows=num_rows,
        max_invalid_fraction=max_invalid_fraction,
        listed_in=listed_in,
    )


def check_invalid_counts(
    reasons: Mapping[str, int],
    *,
    examples: Sequence[QuarantinedClip],
    num_rows: int,
    max_invalid_fraction: float,
    listed_in: str,
) -> None:
    """The same from the number of unusable rows by reason, and some of them.

    Raises:
        UnusableVideosError: their share is above `max_invalid_fraction`.
    """
    number = sum(reasons.values())
    share = number / max(num_rows, 1)
    if share <= max_invalid_fraction:
        return
    named = "\n".join(
        f"  {clip.clip_id} {clip.video}: {clip.reason}: {clip.detail}" for clip in examples[:_MOST_EXAMPLES]
    )
    raise UnusableVideosError(
        f"{number} of {num_rows} rows ({share:.1%}) have no usable video, max_invalid_fraction allows "
        f"{max_invalid_fraction:.1%}: {name_reasons(reasons)}.\n{named}\n"
        f"All of them: {listed_in}. Repair the files, or raise max_invalid_fraction"
    )


def name_reasons(reasons: Mapping[str, int]) -> str:
    """For example "3 missing, 1 timeout"."""
    return ", ".join(f"{number} {reason}" for reason, number in Counter(reasons).most_common())
