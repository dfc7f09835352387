"""Real prepared clips of small videos."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ivcp.data.prepared.encoding import count_tokens, encode_sample
from ivcp.data.prepared.sample import Sample
from ivcp.data.prepared.shards import ShardFile
from ivcp.data.prepared.table import KEY_BYTES, MORE_CONTENTS, SHORT_SIDE, write_table
from ivcp.data.seen_clips import ClipIdentities
from ivcp.models.processor import Processor
from ivcp.records import SPLITS, PreparedIndex, QuarantinedClip, Split
from ivcp.settings import VideoConfig
from ivcp.stages.protocol import Stage
from ivcp.video import load_clip
from tests.models import LABELS, PROMPT
from tests.samples import STAGE, sample_of


def prepare_video(video: Path, label: int, *, processor: Processor) -> Sample:
    """The video as preparation makes it, asked with the prompt of `tests.models`."""
    clip = load_clip(video, processor=processor)
    return sample_of(
        processor,
        clip.frames.copy(),
        label=label,
        sample_id=f"d:{video.stem}",
        source=str(video),
        messages=PROMPT,
        seconds_per_frame=clip.seconds_per_frame,
        video=clip,
    )


def write_shards(
    folder: Path,
    samples: Iterable[tuple[Split, Sample]],
    *,
    clips_per_shard: int = 256,
    jpeg_quality: int | None = None,
    stage: Stage = STAGE,
) -> dict[str, Any]:
    """Writes samples and their table below `folder`; what an index says of them: `root_uri`, `shards` and `table`."""
    folder.mkdir(parents=True, exist_ok=True)
    by_split: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    for split, sample in samples:
        by_split[split].append(sample)
    shards, records, offsets = [], [], []
    for split, in_split in by_split.items():
        encoded = [encode_sample(sample, stage.columns, jpeg_quality=jpeg_quality) for sample in in_split]
        for number, start in enumerate(range(0, len(encoded), clips_per_shard)):
            with ShardFile(folder / f"{split}-{number:05d}.arrow", split) as file:
                for record in encoded[start : start + clips_per_shard]:
                    file.add(record)
            shards.append(file.info)
            records += encoded[start : start + clips_per_shard]
            offsets += file.offsets
    values = _values(records, offsets, numbers=[column.name for column in stage.columns if column.is_number])
    table = write_table(folder / "clips.arrow", shards, values, columns=stage.columns)
    return {"root_uri": str(folder), "shards": tuple(shards), "table": table}


def identities_of(sample_ids: Iterable[str]) -> ClipIdentities:
    """What clips of these helpers are known by: each has a video and a group of its own, named after it."""
    return ClipIdentities.of([(hashlib.sha256(name.encode()).hexdigest(), f"group of {name}") for name in sample_ids])


def _values(records: Sequence[Any], offsets: Sequence[int], *, numbers: Sequence[str]) -> dict[str, Any]:
    """The table's columns of samples whose records are at hand; without keys, so that no later run takes them up."""
    tokens = [count_tokens(record) for record in records]
    identities = identities_of(record["sample_id"][0].as_py() for record in records)
    return {
        "sample_id": [record["sample_id"][0].as_py() for record in records],
        **{name: [record[name][0].as_py() for record in records] for name in numbers},
        "num_tokens": [of_all for of_all, _ in tokens],
        "num_prompt_tokens": [of_prompt for _, of_prompt in tokens],
        "offset": list(offsets),
        "key": [bytes(KEY_BYTES)] * len(records),
        "content": identities.contents,
        "group": identities.groups,
        MORE_CONTENTS: [[]] * len(records),
        SHORT_SIDE: [0] * len(records),
    }


def write_index(
    folder: Path, clips: Sequence[Sample], *, video: VideoConfig, failed: Sequence[QuarantinedClip] = ()
) -> PreparedIndex:
    """Writes `clips` as the test split into shards below `folder`."""
    counts = tuple(sum(clip.columns["label"] == label for clip in clips) for label in range(LABELS.num_classes))
    return PreparedIndex(
        fingerprint="prepared",
        **write_shards(folder, [("test", clip) for clip in clips]),
        labels=LABELS,
        video=video,
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=(PROMPT,),
        num_clips={"test": len(clips)},
        label_counts={"train": (5, 20, 5), "test": counts},
        failed=tuple(failed),
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )
