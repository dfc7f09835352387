"""Prepares validated clips in a process of its own, a few to a shard.

python -m tests.integration.preparation.prepare_validated RUN_CONFIG.json VALIDATED_DIR SHARDS_DIR
"""

import sys
from pathlib import Path

from ivcp.preparation import plan
from ivcp.preparation.prepare import prepare_clips
from ivcp.settings import read_saved_config


def main() -> None:
    plan.CLIPS_PER_SHARD = 2
    config, validated, shards = (Path(word) for word in sys.argv[1:])
    prepare_clips(
        read_saved_config(config), validated_dir=validated, shards_uri=str(shards), index_path=shards / "copy.json"
    )


if __name__ == "__main__":
    main()
