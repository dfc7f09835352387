"""Draws a figure that moves: dark, thick and anti-aliased, before a light background of low contrast."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ivcp.demo.figure import JOINT_INDEX, Body, Point

SUPERSAMPLING = 3
_FAR, _NEAR, _BOX, _CHAIR = 205, 255, 165, 90
"""Opacities out of 255. A lighter far side and lighter things tell the viewer what is in front."""

_FAR_LIMBS = (("left_hip", "left_knee", "left_foot"), ("left_shoulder", "left_elbow", "left_hand"))
_NEAR_LIMBS = (("right_hip", "right_knee", "right_foot"), ("right_shoulder", "right_elbow", "right_hand"))

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Where a clip takes place. Lengths in pixels."""

    size: int
    """Width and height of a frame."""
    background: Frames
    """RGB, shape (size + 2 * margin, size + 2 * margin, 3)."""
    figure_height: float
    ground: Point
    """Where the figure's origin is in the frame: x of the middle, y of the ground."""
    shake: NDArray[np.int64]
    """How far the camera is off in each frame, (dx, dy), at most ``margin``; shape (frames, 2)."""
    noise: float
    """Standard deviation of the sensor's noise, in grey levels."""

    @property
    def margin(self) -> int:
        """How far the background reaches beyond the frame on each side."""
        return (len(self.background) - self.size) // 2


def draw_frames(
    joints: NDArray[np.float64],
    body: Body,
    scene: Scene,
    rng: np.random.Generator,
    *,
    boxes: NDArray[np.float64] | None = None,
) -> Frames:
    """Draw a clip, shape (frames, size, size, 3), RGB.

    Args:
        joints: Positions from ``joint_positions``, shape (frames, 15, 2), in standing heights.
        body: The performer.
        scene: Where the clip takes place.
        rng: Source of the sensor's noise.
        boxes: The middle of a box in each frame, shape (frames, 2), in standing heights; None draws none.
    """
    frames = np.empty((len(joints), scene.size, scene.size, 3), dtype=np.uint8)
    for index, points in enumerate(joints):
        box = None if boxes is None else boxes[index]
        mask = _figure_mask(points, body, scene, scene.shake[index], box)
        frames[index] = _compose(mask, body, scene, scene.shake[index])
    return _add_noise(frames, scene.noise, rng) if scene.noise else frames


def sample_background(size: int, rng: np.random.Generator) -> Frames:
    """Draw a light background of low contrast, shape (size, size, 3), RGB."""
    color = rng.uniform(165, 235) + rng.uniform(-14, 14, size=3)
    texture = _TEXTURES[rng.integers(len(_TEXTURES))](size, rng)
    tint = rng.uniform(0.5, 1.0, size=3)
    gradient = _gradient(size, rng) * rng.uniform(0, 12)
    pixels = color + (texture * rng.uniform(3, 12) + gradient)[..., None] * tint
    return np.clip(pixels, 0, 255).astype(np.uint8)


def add_chair(background: Frames, *, seat: Point, length: float, height: float, facing: int) -> Frames:
    """Put a chair into a background.

    Args:
        background: RGB, shape (size, size, 3).
        seat: The middle of the seat, in pixels of the background.
        length: Of the seat, in pixels.
        height: Of the seat above the ground, in pixels.
        facing: 1 for a back on the left side, -1 for one on the right side.
    """
    (x, y), half = seat, length / 2
    back = x - facing * half
    lines = [
        ((x - half, y), (x + half, y)),
        ((x - half, y), (x - half, y + height)),
        ((x + half, y), (x + half, y + height)),
        ((back, y), (back, y - 1.1 * height)),
    ]
    canvas = Image.new("L", (background.shape[1] * SUPERSAMPLING, background.shape[0] * SUPERSAMPLING))
    for start, end in lines:
        _thick_line(ImageDraw.Draw(canvas), [start, end], length * 0.12, _CHAIR)
    image = Image.fromarray(background)
    image.paste((0, 0, 0), mask=canvas.reduce(SUPERSAMPLING))
    return np.asarray(image)


def _figure_mask(
    points: NDArray[np.float64],
    body: Body,
    scene: Scene,
    shake: NDArray[np.int64],
    box: NDArray[np.float64] | None,
) -> Image.Image:
    canvas = Image.new("L", (scene.size * SUPERSAMPLING, scene.size * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    origin = np.array(scene.ground) - shake
    pixels = points * scene.figure_height + origin
    limb, torso = body.limb_thickness * scene.figure_height, body.torso_thickness * scene.figure_height
    for chain in _FAR_LIMBS:
        _thick_line(draw, _chain(pixels, chain), limb, _FAR)
    _thick_line(draw, _chain(pixels, ("hip", "neck")), torso, _NEAR)
    _thick_line(draw, _chain(pixels, ("left_shoulder", "right_shoulder")), limb, _NEAR)
    _disc(draw, _chain(pixels, ("head",))[0], body.head_radius * scene.figure_height, _NEAR)
    if box is not None:
        _box(draw, box * scene.figure_height + origin, 0.09 * scene.figure_height)
    for chain in _NEAR_LIMBS:
        _thick_line(draw, _chain(pixels, chain), limb, _NEAR)
    return canvas.reduce(SUPERSAMPLING)


def _compose(mask: Image.Image, body: Body, scene: Scene, shake: NDArray[np.int64]) -> Frames:
    left, top = scene.margin + int(shake[0]), scene.margin + int(shake[1])
    behind = scene.background[top : top + scene.size, left : left + scene.size]
    image = Image.fromarray(behind)
    image.paste(body.color, mask=mask)
    return np.asarray(image)


def _add_noise(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Adds one field of grey noise that jumps from frame to frame, far cheaper than a new field each time."""
    size = frames.shape[1]
    field = np.rint(strength * rng.standard_normal((2 * size, 2 * size, 1), dtype=np.float32)).astype(np.int16)
    for frame, (x, y) in zip(frames, rng.integers(size, size=(len(frames), 2)), strict=True):
        frame[:] = np.clip(frame + field[y : y + size, x : x + size], 0, 255)
    return frames


def _chain(pixels: NDArray[np.float64], names: Sequence[str]) -> list[Point]:
    return [(float(x), float(y)) for x, y in (pixels[JOINT_INDEX[name]] for name in names)]


def _thick_line(draw: ImageDraw.ImageDraw, points: list[Point], width: float, level: int) -> None:
    scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
    draw.line(scaled, fill=level, width=max(1, round(width * SUPERSAMPLING)))
    for point in points:
        _disc(draw, point, width / 2, level)


def _disc(draw: ImageDraw.ImageDraw, center: Point, radius: float, level: int) -> None:
    x, y = center
    corners = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse([corner * SUPERSAMPLING for corner in corners], fill=level)


def _box(draw: ImageDraw.ImageDraw, center: NDArray[np.float64], half: float) -> None:
    corners = [*(center - half), *(center + half)]
    draw.rectangle([float(corner) * SUPERSAMPLING for corner in corners], fill=_BOX)


def _gradient(size: int, rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    plane: Floats = (np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]).astype(np.float32)
    return plane


def _stripes(size: int, rng: np.random.Generator) -> Floats:
    waves: Floats = np.sin(_gradient(size, rng) * rng.uniform(6, 25) + rng.uniform(0, 6)).astype(np.float32)
    return waves


def _tiles(size: int, rng: np.random.Generator) -> Floats:
    width = int(rng.integers(size // 10, size // 4))
    ramp = np.arange(size) // width
    tiles: Floats = ((ramp[None, :] + ramp[:, None]) % 2 * 2 - 1).astype(np.float32)
    return tiles


def _blotches(size: int, rng: np.random.Generator) -> Floats:
    cells = int(rng.integers(4, 14))
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


_TEXTURES: tuple[Callable[[int, np.random.Generator], Floats], ...] = (_gradient, _stripes, _tiles, _blotches)
