"""Real prepared clips of small videos."""

from collections.abc import Sequence
from pathlib import Path

from components.artifacts import PreparedIndex, QuarantinedClip
from components.clip_processor import ClipProcessor, PreparedClip
from components.config import VideoConfig
from components.shards import ShardWriter, encode_clip
from components.video import load_clip
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


def write_index(
    folder: Path, clips: Sequence[PreparedClip], *, video: VideoConfig, failed: Sequence[QuarantinedClip] = ()
) -> PreparedIndex:
    """Writes `clips` as the test split into shards below `folder`."""
    with ShardWriter(folder) as writer:
        for clip in clips:
            writer.add("test", encode_clip(**vars(clip)))
    counts = tuple(sum(clip.label == label for clip in clips) for label in range(LABELS.num_classes))
    return PreparedIndex(
        fingerprint="prepared",
        root_uri=str(folder),
        shards=writer.shards,
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
