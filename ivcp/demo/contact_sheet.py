"""A picture that shows some clips of every class as rows of frames."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ivcp.demo.draw import Frames

FRAMES_PER_CLIP = 8
_TILE = 72
_GAP = 8
_CAPTION_WIDTH = 110


def draw_contact_sheet(clips: Mapping[str, Sequence[Frames]]) -> Image.Image:
    """Draw one row per class, clips side by side, eight frames each in the order of time.

    Args:
        clips: Per class name its clips, each of shape (frames, height, width, 3), RGB.
    """
    per_class = max(len(clips_of_label) for clips_of_label in clips.values())
    width = _CAPTION_WIDTH + per_class * (FRAMES_PER_CLIP * _TILE + _GAP)
    sheet = Image.new("RGB", (width, len(clips) * (_TILE + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, (label, clips_of_label) in enumerate(clips.items()):
        top = row * (_TILE + _GAP)
        draw.text((6, top + _TILE / 2), label, fill="black", font=font, anchor="lm")
        for column, frames in enumerate(clips_of_label):
            strip = _strip(frames)
            sheet.paste(strip, (_CAPTION_WIDTH + column * (strip.width + _GAP), top))
    return sheet


def _strip(frames: Frames) -> Image.Image:
    strip = Image.new("RGB", (FRAMES_PER_CLIP * _TILE, _TILE))
    indices = np.linspace(0, len(frames) - 1, FRAMES_PER_CLIP).round().astype(int)
    for column, index in enumerate(indices):
        tile = Image.fromarray(frames[index]).resize((_TILE, _TILE), Image.Resampling.BILINEAR)
        strip.paste(tile, (column * _TILE, 0))
    return strip
