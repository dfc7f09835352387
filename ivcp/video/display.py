"""How stored frames are displayed: turned, mirrored, and with pixels that may be wider than high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX_PLACES = (0, 1, 3, 4)
"""Of the numbers a, b, c, d in FFmpeg's display matrix: a stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
_MOST_STRETCH = 10.0
"""Pixels that are said to be more than ten times as wide as high, or the reverse, are a mistake of the file."""


@dataclass(frozen=True)
class Orientation:
    """What is done to a stored frame, in this order, to show it."""

    transposed: bool = False
    """Rows become columns."""
    flipped_left_right: bool = False
    flipped_top_bottom: bool = False

    @property
    def is_upright(self) -> bool:
        """Whether frames are shown as they are stored."""
        return not (self.transposed or self.flipped_left_right or self.flipped_top_bottom)

    @property
    def is_mirrored(self) -> bool:
        """Whether no turning alone shows it."""
        return (self.transposed + self.flipped_left_right + self.flipped_top_bottom) % 2 == 1


def orientation_of(frame: Any) -> Orientation:
    """What the display matrix of a frame says, by quarter turns; upright where it has none.

    Other angles are taken for the nearest quarter turn.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, c, d = np.frombuffer(data, dtype=np.int32)[list(_MATRIX_PLACES)].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def upright(pixels: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """A stored frame, (height, width, 3), as it is shown."""
    if orientation.transposed:
        pixels = pixels.swapaxes(0, 1)
    if orientation.flipped_left_right:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation.flipped_top_bottom else pixels


def displayed_size(height: int, width: int, pixel_aspect: Any, orientation: Orientation) -> tuple[int, int]:
    """(height, width) in square pixels of a stored frame that is shown; as players do, only the width is stretched.

    `pixel_aspect` is the width of a stored pixel by its height, null or 0 where the file does not say.
    """
    stretch = float(pixel_aspect or 1)
    if 1 / _MOST_STRETCH <= stretch <= _MOST_STRETCH:
        width = max(1, round(width * stretch))
    return (width, height) if orientation.transposed else (height, width)
