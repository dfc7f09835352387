"""The prepared sample: what every stage trains on, whatever its loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.records import MediumKind

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.video import ClipFrames

NO_FRAMES: NDArray[np.uint8] = np.zeros((0, 0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Column:
    """A value that a stage asks of every sample, beside its tokens and media."""

    name: str
    type: pa.DataType
    """Numbers stand in the table of samples as well, where samplers read them without touching the shards."""
    continues_prompt: bool = False
    """Whether its values are tokens that stand behind the prompt in place of the answer."""

    @property
    def is_number(self) -> bool:
        """Whether each value takes the same few bytes."""
        return bool(pa.types.is_integer(self.type) or pa.types.is_floating(self.type))


@dataclass(frozen=True)
class Medium:
    """One video, image or sound of a sample, at the model's size and rate; an image is one frame, a sound none."""

    frames: NDArray[np.uint8]
    """(num_frames * frame_candidates, height, width, 3)"""
    seconds_per_frame: float | None = None
    """Seconds between two frames, on average: some models count time by it."""
    frame_indices: tuple[int, ...] = ()
    """Where the sampled frames stood in their clip, in frames of `source_fps`: some models write their times."""
    source_fps: float = 1.0
    total_frames: int = 0
    """Frames of the clip that they were sampled from; of a sound its samples, `source_fps` a second."""
    frame_candidates: int = 1
    """Frames around each sampled moment, one after the other in `frames`; 1 without augmentation."""
    backend: str | None = None
    """What decoded it: pyav, decord, torchcodec, images, image or sound."""
    kind: MediumKind = "video"
    waveform: NDArray[np.float32] | None = None
    """(num_samples,): a sound, or what is heard of a video's sound track; null where nothing is."""

    @classmethod
    def of(cls, clip: ClipFrames, *, with_candidates: bool = False) -> Self:
        """A clip that was read, with the frames that are sampled, or with all that were read around them."""
        return cls(
            frames=clip.candidates if with_candidates else clip.frames,
            seconds_per_frame=clip.seconds_per_frame,
            frame_indices=clip.frame_indices,
            source_fps=clip.source_fps,
            total_frames=clip.total_frames,
            frame_candidates=len(clip.candidates) // len(clip.frames) if with_candidates and len(clip.frames) else 1,
            backend=clip.backend,
            kind=clip.kind,
            waveform=clip.waveform,
        )

    @property
    def num_frames(self) -> int:
        """Frames that the model sees."""
        return len(self.frames) // self.frame_candidates

    def without_pixels(self) -> Self:
        """The same with frames of no size, (num_frames, 0, 0, 3), and no sample of its sound."""
        waveform = None if self.waveform is None else self.waveform[:0]
        return replace(self, frames=self.frames[:, :0, :0], waveform=waveform)


@dataclass(frozen=True)
class Tokens:
    """A conversation as a stage reads it."""

    input_ids: NDArray[np.int64]
    """(num_tokens,)"""
    mm_token_type_ids: NDArray[np.int64]
    """(num_tokens,): 0 text, 1 image, 2 video, 3 sound. Not 0 exactly where the model puts a feature; a video is images
    to some families."""
    loss_mask: NDArray[np.bool_]
    """(num_tokens,): which tokens are to be predicted."""
    num_prompt_tokens: int
    """Tokens in front of the answer; all of them where the conversation has none."""


@dataclass(frozen=True)
class Sample(Tokens):
    """One sample, ready for the model except for the normalisation of its pixels."""

    sample_id: str
    source: str
    """Path or URI of its first video, image or sound, to show to people."""
    media: tuple[Medium, ...]
    """In the order of their tags in the conversation."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The values that the stage asked for, by the names of its columns."""

    def with_media(self, media: Iterable[Medium]) -> Self:
        """The same sample with other media."""
        return replace(self, media=tuple(media))

    def without_pixels(self) -> Self:
        """The same sample with frames of no size: what is kept of many samples at once."""
        return self.with_media([medium.without_pixels() for medium in self.media])


@dataclass(frozen=True)
class EncodedSample(Sample):
    """A sample with what the vision tower made of its media in their place; `media` have no frames."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The sample's rows of the features, and of what describes their grid: see `ivcp.models.vision.features`."""
