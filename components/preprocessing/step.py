"""The `preprocessing` step: from clean annotations to prepared clips."""

from __future__ import annotations

from pathlib import Path

from components.config_files import read_saved_config
from components.preprocessing.prepare import prepare_clips
from components.step_records import recorded_step


def run_step(*, run_config: str, validated: str, shards_uri: str, prepared: str) -> None:
    """Prepares the clips of `validated` below `shards_uri` and writes their index to the file `prepared`."""
    with recorded_step("preprocessing") as outcome:
        index = prepare_clips(
            read_saved_config(Path(run_config)),
            validated_dir=Path(validated),
            shards_uri=shards_uri,
            index_path=Path(prepared),
        )
        clips = ", ".join(f"{count} {split}" for split, count in index.num_clips.items() if count)
        outcome.result = f"{clips} clips, {index.mean_tokens:.0f} tokens each, {len(index.failed)} failed"
        outcome.directory = index.root_uri
