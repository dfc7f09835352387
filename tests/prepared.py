"""Real prepared clips of small videos."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ivcp.data.prepared.shards import ShardFile, encode_clip
from ivcp.data.prepared.table import columns_of, write_table
from ivcp.models.processor import ClipProcessor, PreparedClip
from ivcp.records import SPLITS, PreparedIndex, QuarantinedClip, Split
from ivcp.settings import VideoConfig
from ivcp.video import load_clip
from tests.models import LABELS, PROMPT


def prepare_video(video: Path, label: int, *, processor: ClipProcessor) -> PreparedClip:
    """The video as preparation makes it, asked with the prompt of `tests.models`."""
    clip = load_clip(video, processor=processor)
    ids, types = processor.tokenize(
        PROMPT,
        frames=clip.frames,
        frame_indices=clip.frame_indices,
        source_fps=clip.source_fps,
        total_frames=clip.total_frames,
    )
    return PreparedClip(f"d:{video.stem}", str(video), label, clip.frames.copy(), ids, types, clip.seconds_per_frame)


def write_shards(
    folder: Path,
    clips: Iterable[tuple[Split, PreparedClip]],
    *,
    clips_per_shard: int = 256,
    jpeg_quality: int | None = None,
) -> dict[str, Any]:
    """Writes clips and their table below `folder`; what an index says of them: `root_uri`, `shards` and `table`."""
    folder.mkdir(parents=True, exist_ok=True)
    by_split: dict[Split, list[Any]] = {split: [] for split in SPLITS}
    for split, clip in clips:
        by_split[split].append(encode_clip(**vars(clip), jpeg_quality=jpeg_quality))
    shards, records, offsets = [], [], []
    for split, encoded in by_split.items():
        for number, start in enumerate(range(0, len(encoded), clips_per_shard)):
            with ShardFile(folder / f"{split}-{number:05d}.arrow", split) as file:
                for record in encoded[start : start + clips_per_shard]:
                    file.add(record)
            shards.append(file.info)
            records += encoded[start : start + clips_per_shard]
            offsets += file.offsets
    table = write_table(folder / "clips.arrow", shards, columns_of(records, offsets))
    return {"root_uri": str(folder), "shards": tuple(shards), "table": table}


def write_index(
    folder: Path, clips: Sequence[PreparedClip], *, video: VideoConfig, failed: Sequence[QuarantinedClip] = ()
) -> PreparedIndex:
    """Writes `clips` as the test split into shards below `folder`."""
    counts = tuple(sum(clip.label == label for clip in clips) for label in range(LABELS.num_classes))
    return PreparedIndex(
        fingerprint="prepared",
        **write_shards(folder, [("test", clip) for clip in clips]),
        labels=LABELS,
        video=video,
        action_token="<ACTION>",
        prompt=PROMPT,
        num_clips={"test": len(clips)},
        label_counts={"train": (5, 20, 5), "test": counts},
        failed=tuple(failed),
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )
