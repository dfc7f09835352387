"""The `preprocessing` step: from clean annotations to prepared clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from components.config_files import read_saved_config
from components.preprocessing.prepare import merge_parts, plan_parts, prepare_part
from components.step_records import recorded_step

log = logging.getLogger(__name__)


def run_plan(*, run_config: str, validated: str, shards_uri: str) -> list[int]:
    """Numbers of the parts that the clips of `validated` are divided into."""
    with recorded_step("preprocessing-plan") as outcome:
        config = read_saved_config(Path(run_config))
        parts = plan_parts(config, validated_dir=Path(validated), shards_uri=shards_uri)
        outcome.result = f"{len(parts)} parts"
    return parts


def run_part(*, run_config: str, validated: str, shards_uri: str, part: int) -> str:
    """Prepares the clips of one part below `shards_uri`; what it did, in a few words."""
    with recorded_step(f"preprocessing-part-{part}") as outcome:
        config = read_saved_config(Path(run_config))
        written = prepare_part(config, validated_dir=Path(validated), shards_uri=shards_uri, part=part)
        outcome.result = f"part {part}: {written or 'all clips were prepared already'}"
    return outcome.result


def run_merge(*, run_config: str, validated: str, shards_uri: str, parts: Sequence[str], prepared: str) -> None:
    """Writes the index of all parts below `shards_uri` and to the file `prepared`."""
    with recorded_step("preprocessing") as outcome:
        for part in parts:
            log.info("%s", part)
        index = merge_parts(
            read_saved_config(Path(run_config)),
            validated_dir=Path(validated),
            shards_uri=shards_uri,
            index_path=Path(prepared),
        )
        clips = ", ".join(f"{count} {split}" for split, count in index.num_clips.items() if count)
        outcome.result = f"{clips} clips, {index.mean_tokens:.0f} tokens each, {len(index.failed)} failed"
        outcome.directory = index.root_uri
