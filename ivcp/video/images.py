"""Single images: what is in a file, and its pixels as people see them, upright and in RGB."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ivcp import storage
from ivcp.video.clip_frames import ClipFrames
from ivcp.video.clips import resize_frames
from ivcp.video.decoders import Frames
from ivcp.video.display import Orientation
from ivcp.video.files import MAX_FRAME_PIXELS, VideoError, VideoInfo

_SEVERAL_VIEWS = "MPO"
"""A photograph with a second, smaller or shifted one behind it, as cameras write: the first is the picture."""
_PAPER = (255, 255, 255, 255)
"""What shines through where an image is transparent, as on a page."""
_DECODER_ERRORS = (OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow's decoders raise on damaged files."""
_SIDEWAYS = (5, 6, 7, 8)
"""Values of EXIF's orientation that make columns of rows."""


class ImageSizes(Protocol):
    """What reading images asks of a model's processor."""

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that images of this size are resized to."""


def load_image(source: str | Path, *, processor: ImageSizes) -> ClipFrames:
    """An image at a path or s3:// URI at the size that the model takes, as a clip of one frame.

    Raises:
        VideoError: it cannot be used; `reason` says why.
    """
    _, pixels = read_image(source)
    frames = resize_frames(pixels[np.newaxis], processor.image_size(*pixels.shape[:2]))
    return ClipFrames(
        frames=frames,
        frame_indices=(0,),
        frame_seconds=(0.0,),
        source_fps=1.0,
        total_frames=1,
        video_frames=1,
        backend="image",
        candidates=frames,
        kind="image",
    )


def read_image(source: str | Path) -> tuple[VideoInfo, Frames]:
    """What an image says of itself, and its pixels, (height, width, 3).

    It is turned as its EXIF data say, and on white where it is transparent.

    Raises:
        VideoError: it is missing, empty, no image, an animation, too large, or cannot be decoded.
    """
    try:
        # Pillow warns of what it overlooks in damaged headers, and of sizes that are refused here.
        with storage.borrowed(source) as path, warnings.catch_warnings(action="ignore"), _opened(path) as image:
            info = _describe(image, path)
            return info, np.array(_in_rgb(image))  # a copy, which torch may write to
    except FileNotFoundError as error:
        raise VideoError("missing", str(error)) from error
    except MemoryError as error:
        raise VideoError("out_of_memory", "its pixels take more memory than there is") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise VideoError("missing", f"there is no file {path}")
    if path.stat().st_size == 0:
        raise VideoError("empty", "the file has 0 bytes")
    try:
        opened = Image.open(path)
    except UnidentifiedImageError as error:
        raise VideoError("not_an_image", "Pillow knows no image of this kind") from error
    except Image.DecompressionBombError as error:
        raise VideoError("too_large", str(error)) from error
    except _DECODER_ERRORS as error:
        raise VideoError("not_an_image", f"Pillow cannot read it: {error}") from error
    with opened as image:
        yield image


def _describe(image: Image.Image, path: Path) -> VideoInfo:
    width, height = image.size
    if width * height > MAX_FRAME_PIXELS:
        raise VideoError("too_large", f"{width}x{height} pixels, most are 8192x8192")
    try:
        num_pictures = getattr(image, "n_frames", 1)  # not every format has it
        is_sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    except _DECODER_ERRORS as error:
        raise VideoError("damaged", f"its header cannot be read: {error}") from error
    if num_pictures > 1 and image.format != _SEVERAL_VIEWS:
        raise VideoError(
            "animated", f"{num_pictures} pictures in one file: name it as a video, or save the picture that is meant"
        )
    return VideoInfo(
        container="image",
        codec=f"image ({(image.format or '').lower()})",
        pixel_format=image.mode,
        width=height if is_sideways else width,
        height=width if is_sideways else height,
        orientation=Orientation(),
        interlaced=False,
        fps=1.0,
        num_frames=1,
        stated_frames=1,
        duration_seconds=None,
        num_bytes=path.stat().st_size,
    )


def _in_rgb(image: Image.Image) -> Image.Image:
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except _DECODER_ERRORS as error:
        raise VideoError(
            "truncated" if "truncated" in str(error).lower() else "damaged", f"decoding fails: {error}"
        ) from error
    if upright.mode == "F":
        raise VideoError("not_an_image", "floating-point pixels, of which nobody knows what white is: save it as PNG")
    if upright.mode.startswith("I"):
        upright = _in_eight_bits(upright)
    if upright.has_transparency_data:
        shown = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", shown.size, _PAPER), shown)
    return upright.convert("RGB")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits a pixel; files of 32 hold numbers of 8 or 16."""
    grey = np.asarray(image).astype(np.int64)
    largest = 255 if image.mode == "I" and grey.max(initial=0) <= 255 else 65535
    return Image.fromarray((grey.clip(0, largest) * 255 // largest).astype(np.uint8))
