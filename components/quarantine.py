"""How many clips may be unusable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from components.artifacts import QuarantinedClip

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
    share = len(quarantined) / max(num_rows, 1)
    if share <= max_invalid_fraction:
        return
    examples = "\n".join(
        f"  {clip.clip_id} {clip.video}: {clip.reason}: {clip.detail}" for clip in quarantined[:_MOST_EXAMPLES]
    )
    raise UnusableVideosError(
        f"{len(quarantined)} of {num_rows} rows ({share:.1%}) have no usable video, max_invalid_fraction allows "
        f"{max_invalid_fraction:.1%}: {count_reasons(quarantined)}.\n{examples}\n"
        f"All of them: {listed_in}. Repair the files, or raise max_invalid_fraction"
    )


def count_reasons(quarantined: Sequence[QuarantinedClip]) -> str:
    """For example "3 missing, 1 timeout"."""
    counts = Counter(clip.reason for clip in quarantined).most_common()
    return ", ".join(f"{number} {reason}" for reason, number in counts)
