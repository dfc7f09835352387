"""Small real objects for the tests of the evaluation step."""

from collections.abc import Sequence

import numpy as np

from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.predict import PredictedSplit
from ivcp.records import Labels, QuarantinedClip
from tests.samples import plain_sample

PAIR_LABELS = Labels(label_names=("sit", "stand", "wave"), reversed_pairs=(("sit", "stand"),))


def clip(clip_id: str, label: int, *, num_frames: int = 6, size: int = 4) -> Sample:
    """A clip whose frame t is filled with the value t."""
    frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), dtype=np.uint8)
    return plain_sample(
        sample_id=clip_id, source=f"{clip_id}.mp4", label=label, frames=frames, input_ids=np.arange(3, dtype=np.int64)
    )


def failed_clip(clip_id: str, label: int) -> QuarantinedClip:
    return QuarantinedClip(
        clip_id=clip_id,
        dataset="d",
        row=0,
        video=f"{clip_id}.mp4",
        split="test",
        label=label,
        reason="truncated",
        detail="12 of 30 frames",
    )


def predicted_split(
    labels: Sequence[int], logits: Sequence[Sequence[float]], *, failed: Sequence[QuarantinedClip] = ()
) -> PredictedSplit:
    ids = tuple(f"d:{number}" for number in range(len(labels)))
    return PredictedSplit(
        clip_ids=ids,
        videos=tuple(f"{clip_id}.mp4" for clip_id in ids),
        num_frames=np.full(len(labels), 6),
        labels=np.array(labels, dtype=np.int64),
        logits=np.array(logits, dtype=np.float32) if len(labels) else np.zeros((0, 3), dtype=np.float32),
        failed=tuple(failed),
        seconds=1.0,
    )
