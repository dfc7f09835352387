"""Processes fill a cache entry together, each its share, once."""

import json

from ivcp.feature_cache.store import CacheEntry
from tests.integration.torchrun import torchrun


def test_no_clip_is_computed_twice(tmp_path):
    done = torchrun("-m", "tests.integration.feature_cache.fill_entry", str(tmp_path))
    assert done.returncode == 0, done.stderr

    first, second = (json.loads((tmp_path / f"computed-{rank}.json").read_text()) for rank in (0, 1))
    assert first == [0, 1, 4, 5, 8, 9, 12, 13]
    assert second == [2, 3, 6, 7, 10, 11]
    entry = CacheEntry(tmp_path / "cache" / "entry", 14, clips_per_part=2)
    assert [entry[position]["feature"].tolist() for position in range(14)] == [[[n, n]] for n in range(14)]
    assert sorted(path.name for path in entry.folder.iterdir()) == [
        "in_use.lock",
        *(f"part-{number:05d}.safetensors" for number in range(7)),
    ]
