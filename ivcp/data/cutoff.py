"""Rows that do not fit `cutoff_len`: nothing is ever cut."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 20
"""Rows that the message names."""


class TooLongError(ValueError):
    """Rows that do not fit `cutoff_len`; the message names them and both numbers."""


def explain_too_long(
    named: Sequence[tuple[str, int, int]], *, num_too_long: int, num_rows: int, longest: int, cutoff_len: int
) -> TooLongError:
    """The error about rows that are too long; `named` are some: data set, row, tokens."""
    lines = "\n".join(f"  data set {name} row {row}: {tokens} tokens" for name, row, tokens in named[:MOST_NAMED])
    left_out = num_too_long - min(len(named), MOST_NAMED)
    more = f"\n  and {left_out} more" if left_out else ""
    return TooLongError(
        f"{num_too_long} of {num_rows} rows are longer than cutoff_len = {cutoff_len} tokens; nothing is ever cut:\n"
        f"{lines}{more}\nSet cutoff_len: {longest}, or sample fewer or smaller frames "
        "(video_num_frames, video_maxlen, video_max_pixels) or smaller images (image_max_pixels)"
    )
