"""Clips that are lists of frame images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ivcp.video.decoders import Decoded, Frames, Look, Resize, Resizing
from ivcp.video.display import Orientation
from ivcp.video.files import VideoError, VideoInfo


def probe_images(paths: Sequence[Path], *, fps: float) -> VideoInfo:
    """Size and number of frame images that were taken `fps` per second.

    Raises:
        VideoError: there is none, or the first cannot be read.
    """
    if not paths:
        raise VideoError("zero_frames", "the list of frame images is empty")
    first = _read_image(paths[0])
    return VideoInfo(
        container="images",
        codec=f"images ({paths[0].suffix.lstrip('.').lower()})",
        pixel_format="rgb24",
        width=first.shape[1],
        height=first.shape[0],
        orientation=Orientation(),
        interlaced=False,
        fps=fps,
        num_frames=len(paths),
        stated_frames=len(paths),
        duration_seconds=len(paths) / fps,
        num_bytes=sum(path.stat().st_size for path in paths if path.exists()),
    )


def count_images(paths: Sequence[Path], *, look_at: Collection[int] = (), look: Look | None = None) -> int:
    """Decodes all frame images and counts; shows those numbered `look_at` to `look`.

    Raises:
        VideoError: one cannot be read, or they differ in size.
    """
    first: tuple[int, ...] | None = None
    for number, path in enumerate(paths):
        image = _read_image(path)
        first = first or image.shape
        if (shape := image.shape) != first:
            raise VideoError("damaged", f"{path} is {shape[1]}x{shape[0]}, the first frame is {first[1]}x{first[0]}")
        if look is not None and number in look_at:
            look(number, image)
    return len(paths)


def decode_images(paths: Sequence[Path], indices: Sequence[int], resize: Resize) -> Decoded:
    """Frame images at `indices`, resized.

    Raises:
        VideoError: one cannot be read, or they differ in size.
    """
    resizing = Resizing(resize)
    for index in indices:
        resizing.add(_read_image(paths[index]))
    return Decoded(resizing.result(), len(paths), "images")


def _read_image(path: Path) -> Frames:
    if not path.exists():
        raise VideoError("missing", f"there is no file {path}")
    if path.stat().st_size == 0:
        raise VideoError("empty", f"{path} has 0 bytes")
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError("not_a_video", f"{path} cannot be read as an image: {error}") from error
