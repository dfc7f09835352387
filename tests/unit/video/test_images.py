"""Single images of all kinds, as people see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ivcp.settings import VideoConfig
from ivcp.video import VideoError, load_image, read_image

HALVES = np.zeros((40, 60, 3), dtype=np.uint8)
HALVES[:, 30:] = (255, 128, 0)
"""Black on the left, orange on the right."""
SIDEWAYS = 6
"""EXIF's orientation of a picture that has to be turned to the right."""


class Sizes:
    video = VideoConfig()

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        return height // 2, width // 2


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def of_16_bits() -> Image.Image:
    return Image.fromarray(HALVES[:, :, 0].astype(np.uint16) * 257)


def see_through() -> Image.Image:
    """The right half is black that nobody sees."""
    pixels = np.zeros((40, 60, 4), dtype=np.uint8)
    pixels[:, :30] = (255, 0, 0, 255)
    return Image.fromarray(pixels)


def test_pixels_and_what_the_file_says(tmp_path: Path) -> None:
    info, pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(HALVES)))
    np.testing.assert_array_equal(pixels, HALVES)
    assert (info.codec, info.width, info.height, info.num_frames) == ("image (png)", 60, 40, 1)
    clip = load_image(tmp_path / "a.png", processor=Sizes())
    assert (clip.frames.shape, clip.kind, clip.total_frames, clip.seconds_per_frame) == (
        (1, 20, 30, 3),
        "image",
        1,
        0.0,
    )


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    info, pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(HALVES), exif=exif))
    assert (info.width, info.height) == (40, 60)
    np.testing.assert_array_equal(pixels, np.rot90(HALVES, -1))


@pytest.mark.parametrize(
    ("name", "image", "left", "right"),
    [
        ("palette.png", Image.fromarray(HALVES).quantize(2), (0, 0, 0), (255, 128, 0)),
        ("alpha.png", see_through(), (255, 0, 0), (255, 255, 255)),
        ("alpha.webp", see_through(), (255, 0, 0), (255, 255, 255)),
        ("deep.png", of_16_bits(), (0, 0, 0), (255, 255, 255)),
        ("deep.tiff", of_16_bits(), (0, 0, 0), (255, 255, 255)),
        ("print.jpg", Image.fromarray(HALVES).convert("CMYK"), (0, 0, 0), (255, 128, 0)),
        (
            "bits.png",
            Image.fromarray(HALVES).convert("L").point(lambda v: v > 64 and 255).convert("1"),
            (0,) * 3,
            (255,) * 3,
        ),
    ],
)
def test_kinds_of_pixels(tmp_path: Path, name: str, image: Image.Image, left: Any, right: Any) -> None:
    _, pixels = read_image(saved(tmp_path / name, image))
    assert pixels.shape == (40, 60, 3)
    for column, colour in ((5, left), (55, right)):
        assert np.abs(pixels[20, column].astype(int) - colour).max() <= 12, (name, column)


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(HALVES).quantize(2)
    black = int(np.asarray(image)[0, 0])
    _, pixels = read_image(saved(tmp_path / "a.png", image, transparency=black))
    assert pixels[20, 5].tolist() == [255, 255, 255]


def test_a_photograph_with_a_second_view_is_its_first(tmp_path: Path) -> None:
    other = Image.fromarray(255 - HALVES)
    path = saved(tmp_path / "a.mpo", Image.fromarray(HALVES), save_all=True, append_images=[other])
    info, pixels = read_image(path)
    assert info.codec == "image (mpo)"
    assert pixels[20, 5].max() < 30


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    frames = [Image.fromarray(HALVES), Image.fromarray(255 - HALVES)]
    whole = saved(
        tmp_path / "whole.jpg", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    )
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-1500])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    saved(tmp_path / "moving.webp", frames[0], save_all=True, append_images=frames[1:])
    saved(tmp_path / "huge.png", Image.new("1", (10_000, 10_000)))
    saved(tmp_path / "bomb.png", Image.new("1", (15_000, 15_000)))
    saved(tmp_path / "float.tiff", Image.fromarray(np.zeros((4, 4), dtype=np.float32)))
    expected = {
        "absent.png": "missing",
        "empty.png": "empty",
        "text.png": "not_an_image",
        "cut.jpg": "truncated",
        "moving.gif": "animated",
        "moving.webp": "animated",
        "huge.png": "too_large",
        "bomb.png": "too_large",
        "float.tiff": "not_an_image",
    }
    found = {}
    for name in expected:
        with pytest.raises(VideoError) as caught:
            read_image(tmp_path / name)
        found[name] = caught.value.reason
    assert found == expected


def test_a_damaged_header_is_no_crash(tmp_path: Path) -> None:
    """Bytes flipped anywhere give pixels or a `VideoError`."""
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "webp", "tiff", "bmp"):
        sound = saved(tmp_path / f"a.{suffix}", Image.fromarray(HALVES)).read_bytes()
        for number in range(60):
            broken = bytearray(sound)
            for place in rng.integers(0, min(len(sound), 400), 3):
                broken[place] = rng.integers(256)
            path = tmp_path / f"{number}.{suffix}"
            path.write_bytes(broken)
            try:
                _, pixels = read_image(path)
            except VideoError:
                continue
            assert pixels.shape[2] == 3
