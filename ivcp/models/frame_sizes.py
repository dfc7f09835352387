"""The size that frames have where a model cuts them into patches; light, so that other engines can import it."""

from __future__ import annotations

import math

from ivcp.settings import VideoConfig


def size_on_grid(height: int, width: int, *, step: int, video: VideoConfig) -> tuple[int, int]:
    """The (height, width) in pixels that frames of this size are resized to: multiples of `step`.

    Keeps the aspect within `video_min_pixels` and `video_max_pixels` (the rule of Qwen2-VL's `smart_resize`).
    """
    return _on_grid(height, width, step=step, fewest=video.video_min_pixels, most=video.video_max_pixels)


def image_size_on_grid(height: int, width: int, *, step: int, video: VideoConfig) -> tuple[int, int]:
    """The same of an image, within `image_min_pixels` and `image_max_pixels`."""
    return _on_grid(height, width, step=step, fewest=video.image_min_pixels, most=video.image_max_pixels)


def _on_grid(height: int, width: int, *, step: int, fewest: int, most: int) -> tuple[int, int]:
    pixels = height * width
    rows, columns = (max(1, round(side / step)) for side in (height, width))
    if rows * columns * step**2 > most:
        scale = math.sqrt(most / pixels) / step
        rows, columns = (max(1, math.floor(side * scale)) for side in (height, width))
    elif rows * columns * step**2 < fewest:
        scale = math.sqrt(fewest / pixels) / step
        rows, columns = (math.ceil(side * scale) for side in (height, width))
    return rows * step, columns * step
