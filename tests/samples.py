"""Samples of the stage `action_cls`, as preparation makes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ivcp.data.prepared.sample import Medium, Sample, Tokens
from ivcp.models.processor import Batch, Processor
from ivcp.models.sampled import SampledVideo
from ivcp.records import MediumKind, Message
from ivcp.settings import RunConfig, from_flat
from ivcp.stages.action_cls.collator import ActionCollator
from ivcp.stages.registry import stage_of

ACTION = "<ACTION>"
PROMPT = (Message(role="user", content=f"<video>What is the person doing?{ACTION}"),)
STAGE = stage_of(RunConfig())


@dataclass(frozen=True)
class Frames:
    """Frames of a video as `ivcp.models.sampled.SampledVideo` has them; every frame of the source by default."""

    frames: np.ndarray
    frame_indices: Sequence[int]
    source_fps: float
    total_frames: int
    kind: MediumKind = "video"
    waveform: np.ndarray | None = None

    @property
    def seconds_per_frame(self) -> float:
        return (self.frame_indices[-1] - self.frame_indices[0]) / max(1, len(self.frame_indices) - 1) / self.source_fps

    @classmethod
    def all_of(cls, frames: np.ndarray, *, fps: float = 4.0) -> "Frames":
        return cls(frames, range(len(frames)), fps, len(frames))


def tokens_of(processor: Processor, frames: np.ndarray, messages: Sequence[Message] = PROMPT) -> Tokens:
    return STAGE.tokenize(processor, messages, [Frames.all_of(frames)])


def sample_of(
    processor: Processor,
    frames: np.ndarray,
    *,
    label: int,
    sample_id: str,
    source: str,
    messages: Sequence[Message] = PROMPT,
    seconds_per_frame: float | None = None,
    video: SampledVideo | None = None,
) -> Sample:
    """`video` says where the frames stood in it; null takes all frames of the source."""
    return Sample(
        **vars(STAGE.tokenize(processor, messages, [video or Frames.all_of(frames)])),
        sample_id=sample_id,
        source=source,
        media=(Medium(frames, seconds_per_frame),),
        columns={"label": label},
    )


def plain_sample(
    *,
    frames: np.ndarray,
    input_ids: np.ndarray,
    label: int = 0,
    sample_id: str = "d:0",
    source: str = "0.mp4",
    mm_token_type_ids: np.ndarray | None = None,
    answer_ids: Sequence[int] = (),
    answer_start: int = 0,
    **medium: object,
) -> Sample:
    """A sample of given numbers; `answer_ids` follow the prompt, and are learned from `answer_start` on."""
    types = np.zeros(len(input_ids), dtype=np.int64) if mm_token_type_ids is None else mm_token_type_ids
    behind = np.array(answer_ids, dtype=np.int64)
    return Sample(
        input_ids=np.concatenate([input_ids, behind]),
        mm_token_type_ids=np.concatenate([types, np.zeros(len(behind), dtype=np.int64)]),
        loss_mask=np.arange(len(input_ids) + len(behind)) >= len(input_ids) + answer_start,
        num_prompt_tokens=len(input_ids),
        sample_id=sample_id,
        source=source,
        media=(Medium(frames, **medium),),
        columns={"label": label},
    )


def with_answer(sample: Sample, answer_ids: Sequence[int], *, start: int = 0) -> Sample:
    """The prompt of a sample with an answer behind it, learned from `start` on."""
    (medium,) = sample.media
    count = sample.num_prompt_tokens
    return plain_sample(
        frames=medium.frames,
        input_ids=sample.input_ids[:count],
        label=sample.columns["label"],
        sample_id=sample.sample_id,
        source=sample.source,
        mm_token_type_ids=sample.mm_token_type_ids[:count],
        answer_ids=answer_ids,
        answer_start=start,
        seconds_per_frame=medium.seconds_per_frame,
    )


def stage_with(**settings: object):
    """The stage with some settings."""
    return stage_of(from_flat(settings))


def batch_of(processor: Processor, samples: Sequence[Sample], *, whole: bool = False) -> Batch:
    """A batch as the stage makes it: of prompts, or of whole samples."""
    return ActionCollator(processor, prompts_only=not whole)(samples)
