"""Fills a cache entry in the processes that torchrun starts; each writes down which clips it computed.

    torchrun --nproc-per-node 2 -m tests.integration.feature_cache.fill_entry FOLDER

The second process comes late: the first one has begun to write by then, unless it waits.
"""

import json
import sys
import time
from pathlib import Path

import torch

from ivcp.distributed.processes import joined_processes
from ivcp.distributed.rank import is_owner, rank
from ivcp.feature_cache.entries import FeatureCache
from ivcp.feature_cache.store import CacheEntry
from ivcp.settings import TrainConfig


def main() -> None:
    folder, computed = Path(sys.argv[1]), []

    def encode(positions):
        for position in positions:
            computed.append(position)
            yield {"feature": torch.full((1, 2), float(position))}

    entry = CacheEntry(folder / "cache" / "entry", 14, clips_per_part=2)
    with joined_processes(TrainConfig()):
        if not is_owner():
            time.sleep(2)
        FeatureCache(folder / "cache", max_bytes=10**9).complete(entry, encode)
    (folder / f"computed-{rank()}.json").write_text(json.dumps(computed))


if __name__ == "__main__":
    main()
