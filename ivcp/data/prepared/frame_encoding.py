"""Frames as they stand in shards: raw pixels, or one JPEG image each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode_frames(frames: NDArray[np.uint8], jpeg_quality: int | None) -> tuple[bytes, list[int]]:
    """The bytes of `frames`, (num_frames, height, width, 3), and each image's size; no sizes mean raw pixels.

    The same frames give the same bytes with the same version of libjpeg-turbo. Colours have half the resolution, as
    in nearly all videos.
    """
    if jpeg_quality is None:
        return frames.tobytes(), []
    import simplejpeg

    images = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=jpeg_quality, colorsubsampling="420")
        for frame in frames
    ]
    return b"".join(images), [len(image) for image in images]


def decode_frames(
    encoded: memoryview, sizes: Sequence[int], shape: Sequence[int], chosen: slice = slice(None)
) -> NDArray[np.uint8]:
    """The `chosen` ones of the frames that `encode_frames` encoded, of `shape` in all; a copy that may be written."""
    if not len(sizes):
        return np.frombuffer(encoded, dtype=np.uint8).reshape(shape)[chosen].copy()
    import simplejpeg

    ends = np.cumsum(sizes)
    frames = np.empty((len(range(shape[0])[chosen]), *shape[1:]), dtype=np.uint8)
    for frame, number in zip(frames, range(shape[0])[chosen], strict=True):
        image = encoded[ends[number] - sizes[number] : ends[number]]
        frame[:] = simplejpeg.decode_jpeg(image, colorspace="RGB")
    return frames
