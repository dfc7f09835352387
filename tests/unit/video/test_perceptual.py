import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.fftpack import dct

from ivcp.video.perceptual import hash_frame, join_pairs, moments, similar_pairs


def picture(seed: int, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A few blurred blobs."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_the_hash_is_phash() -> None:
    """Against the definition, with SciPy's cosine transform."""
    small = Image.fromarray(picture(1)).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    low = dct(dct(np.asarray(small, dtype=float), axis=0), axis=1)[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert hash_frame(picture(1)) == int(bits, 2)


def test_scaling_and_compression_change_few_bits_and_another_picture_many() -> None:
    frame, file = picture(2), io.BytesIO()
    Image.fromarray(frame).resize((160, 120)).save(file, "JPEG", quality=30)
    original, again, other = (hash_frame(f) for f in (frame, np.asarray(Image.open(file)), picture(3)))
    assert original is not None
    assert again is not None
    assert other is not None
    assert distance(original, again) <= 4
    assert distance(original, other) > 16


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_uniform_picture_has_no_hash(shade: int) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (48, 64, 3))
    assert hash_frame(np.clip(shade + noise, 0, 255).astype(np.uint8)) is None


def test_moments_are_centres_of_equal_spans() -> None:
    assert moments(80, 4) == (10, 30, 50, 70)
    assert moments(1, 4) == (0, 0, 0, 0)
    assert moments(10, 0) == ()


@pytest.mark.parametrize("max_bits", [0, 5, 16, 40])
def test_similar_pairs_are_those_that_comparing_all_finds(max_bits: int) -> None:
    rng = np.random.default_rng(max_bits)
    hashes = rng.integers(0, 1 << 63, (300, 4), dtype=np.uint64)
    for row in range(0, 300, 3):  # near copies, from 0 to 59 bits away
        flipped = np.zeros(256, dtype=np.uint8)
        flipped[rng.choice(256, row % 60, replace=False)] = 1
        hashes[row + 1] = hashes[row] ^ np.packbits(flipped).view(">u8")
    expected = {
        (a, b)
        for a, b in itertools.combinations(range(300), 2)
        if np.bitwise_count(hashes[a] ^ hashes[b]).sum() <= max_bits
    }
    assert {tuple(sorted(pair)) for pair in similar_pairs(hashes, max_bits)} == expected
    assert len(expected) > 3


def test_many_equal_hashes_hang_together_without_comparing_all() -> None:
    hashes = np.full((5000, 4), 7, dtype=np.uint64)
    pairs = list(similar_pairs(hashes, 0))
    assert len(pairs) < 5000 * 65
    assert [len(group) for group in join_pairs(pairs)] == [5000]


def test_what_hangs_together() -> None:
    assert join_pairs([(3, 1), (5, 4), (1, 9)]) == [[1, 3, 9], [4, 5]]
    assert list(similar_pairs(np.zeros((1, 4), dtype=np.uint64), 8)) == []
