"""Videos that look alike: a perceptual hash of a few frames, and pairs of hashes that differ in few bits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ivcp.video.decoders import Frames

Hashes = NDArray[np.uint64]
"""(num_videos, num_frames): the 64-bit hash of each frame that was looked at."""

_SIDE = 32
"""Pixels per side that a frame is reduced to before the cosine transform."""
_KEPT = 8
"""Lowest frequencies per side: 8 x 8 bits."""
_FLAT = 3.0
"""Standard deviation of the reduced frame's grey levels, of 255, below which a hash says nothing: black, a colour."""
_NEIGHBOURS = 64
"""Hashes of one bucket that each is compared with: a bucket of more is not compared pair by pair."""


def _cosines() -> NDArray[np.float64]:
    """The first rows of the discrete cosine transform (DCT-II), (8, 32)."""
    frequency, place = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    cosines: NDArray[np.float64] = np.cos(math.pi * frequency * (2 * place + 1) / (2 * _SIDE))
    return cosines


_COSINES = _cosines()


def moments(num_frames: int, count: int) -> tuple[int, ...]:
    """The frames of a video that are looked at: the centres of `count` equal spans, some twice where it is short."""
    return tuple((2 * number + 1) * num_frames // (2 * count) for number in range(count))


def hash_frame(frame: Frames) -> int | None:
    """64 bits that stay nearly the same when a picture is scaled or compressed; None for a uniform picture.

    `frame` is (height, width, 3). This is pHash as C. Zauner describes it ("Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010) and as the package imagehash computes it: grey, 32 x 32 pixels, the 8 x 8
    lowest frequencies of the cosine transform, each above the median or not.
    """
    small = Image.fromarray(frame).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float64)
    if grey.std() < _FLAT:
        return None
    frequencies = _COSINES @ grey @ _COSINES.T
    bits = (frequencies > np.median(frequencies)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def similar_pairs(hashes: Hashes, max_bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of rows of `hashes` that differ in at most `max_bits` bits in all.

    Hashes are cut into `max_bits + 1` bands: two that differ in `max_bits` agree in one band at least. Each hash is
    compared with its neighbours among those that agree in a band, so that time grows little faster than the number of
    hashes; where more than 64 agree, as of many nearly equal pictures, the nearest in order are compared, and the
    others are found through them. A pair may come more than once.
    """
    if len(hashes) < 2:
        return
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8), axis=1)
    for band in np.array_split(np.arange(bits.shape[1]), max_bits + 1):
        yield from _pairs_in_band(bits[:, band], hashes, max_bits)


def _pairs_in_band(band: NDArray[np.uint8], hashes: Hashes, max_bits: int) -> Iterator[tuple[int, int]]:
    keys = np.packbits(band, axis=1)
    order = np.lexsort((*hashes.T, *keys.T))
    keys, hashes = keys[order], hashes[order]
    for shift in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        places = np.flatnonzero((keys[shift:] == keys[:-shift]).all(axis=1))
        if not len(places):
            return
        distances = np.bitwise_count(hashes[places] ^ hashes[places + shift]).sum(axis=1)
        for place in places[distances <= max_bits]:
            yield int(order[place]), int(order[place + shift])


def join_pairs(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """What hangs together through pairs, each group ascending."""
    root: dict[int, int] = {}

    def find(item: int) -> int:
        while root.setdefault(item, item) != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        root[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for item in sorted(root):
        groups[find(item)].append(item)
    return list(groups.values())
