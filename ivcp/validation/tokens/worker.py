"""What a worker process of the validation step does to count tokens, with the model's own processor.

The module itself is light: only the worker imports torch and transformers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.encoding import num_tokens
from ivcp.data.prompts import IMAGE_TAG, VIDEO_TAG, media_tags
from ivcp.models import processor_settings
from ivcp.models.processor_settings import ProcessorSettings, load_processor
from ivcp.records import Clip, MediumKind, Message
from ivcp.stages.protocol import Stage
from ivcp.validation.catalog import read_conversation
from ivcp.validation.frame_times import StoredTimes
from ivcp.video.sampling import Span, choose_frames

PRELOAD = (processor_settings.PRELOAD, __name__)
_SMALL = (16, 16)
"""(height, width) of frames where their size does not matter."""
_FEW = 2
"""Frames where their number does not matter."""
_LATE = 100_000
"""A frame index whose time has more digits than the first ones'."""


@dataclass(frozen=True)
class Said:
    """A conversation, as the catalog has it."""

    text: str
    rejected: str | None
    """The answer that is not preferred to its last turn."""


@dataclass(frozen=True)
class Shape:
    """What the tokens of a video or an image depend on."""

    kind: MediumKind
    height: int
    """Pixels of the source, as displayed."""
    width: int
    num_sampled: int


@dataclass(frozen=True)
class Times:
    """When the frames of a clip's video were taken: what time stamps in a prompt depend on."""

    video: StoredTimes
    start_seconds: float | None
    end_seconds: float | None


@dataclass(frozen=True)
class TokenJob:
    """Things of one kind to count at once."""

    settings: ProcessorSettings
    stage: Stage
    numbers: tuple[int, ...]
    """Their ids in the catalog."""
    items: tuple[Said | Shape | Times, ...]


@dataclass(frozen=True)
class TokenCounts:
    """The parts of the sum; a clip's tokens are its conversation's, and the shapes' and times' of its videos."""

    counts: tuple[int, ...]
    """Of each item of the job; what a shape or times add may be negative."""
    sizes: tuple[tuple[int, int], ...]
    """The (height, width) that frames of each shape are resized to; empty for other items."""
    depends_on_times: bool
    """Whether the model writes time stamps of several lengths into its prompt: else times add nothing."""


def count_tokens(job: TokenJob) -> TokenCounts:
    """Counts by calling the processor on black frames: exact for every model, and nothing is decoded.

    Video tokens are special tokens, so that text and video add up: each conversation is counted with small clips,
    and each shape and each time with one conversation.

    Raises:
        OSError, ValueError: there is no such base model, or its tokenizer splits the action token.
    """
    counter = _counter(job)
    sizes = tuple(counter.frame_size(item) for item in job.items if isinstance(item, Shape))
    return TokenCounts(tuple(map(counter.count, job.items)), sizes, counter.depends_on_times)


class _Counter:
    def __init__(self, settings: ProcessorSettings, stage: Stage) -> None:
        self._processor, self._settings, self._stage = load_processor(settings), settings, stage
        self._plain = stage.smallest_prompt
        self._prompt = functools.lru_cache(maxsize=4096)(self._count_said)

    @functools.cached_property
    def _small(self) -> tuple[int, int]:
        return self._processor.frame_size(*_SMALL)

    @functools.cached_property
    def _few(self) -> int:
        return self._count(self._plain, self._small, range(_FEW))

    @functools.cached_property
    def depends_on_times(self) -> bool:
        """As `TokenCounts` has it."""
        if self._processor.reads_text_only:
            return False
        return self._few != self._count(self._plain, self._small, range(_LATE, _LATE + _FEW))

    def count(self, item: Said | Shape | Times) -> int:
        if isinstance(item, Shape):
            return self._of_shape(item)
        return self._stamps(item) if isinstance(item, Times) else self._conversation(item)

    def frame_size(self, shape: Shape) -> tuple[int, int]:
        sizes = self._processor.frame_size if shape.kind == "video" else self._processor.image_size
        return sizes(shape.height, shape.width)

    def _of_shape(self, shape: Shape) -> int:
        size = self.frame_size(shape)
        if shape.kind == "video":
            return self._count(self._plain, size, range(shape.num_sampled)) - self._few
        return self._count_image(size) - self._count_image(self._processor.image_size(*_SMALL))

    def _count_image(self, size: tuple[int, int]) -> int:
        """Tokens of a conversation with an image of a size."""
        asked = [
            each.model_copy(update={"content": each.content.replace(VIDEO_TAG, IMAGE_TAG)}) for each in self._plain
        ]
        return len(self._stage.tokenize(self._processor, asked, [_black_image(size)]).input_ids)

    def _conversation(self, said: Said) -> int:
        messages = read_conversation(said.text)
        kept = messages if self._stage.reads_answers else self._stage.prompt_of(messages)
        return self._prompt(kept, said.rejected)

    def _stamps(self, times: Times) -> int:
        span = Span(times.start_seconds, times.end_seconds)
        indices = choose_frames(times.video.timeline, span, self._settings.video).frame_indices
        stamped = self._count(self._plain, self._small, indices, fps=times.video.fps)
        return stamped - self._count(self._plain, self._small, range(len(indices)))

    def _count_said(self, messages: tuple[Message, ...], rejected: str | None) -> int:
        """With a small clip or image for each of its tags."""
        media = [
            _black(self._small, range(_FEW)) if kind == "video" else _black_image(self._processor.image_size(*_SMALL))
            for message in messages
            for kind in media_tags(message.content)
        ]
        clip = Clip(
            clip_id="",
            dataset="",
            row=0,
            video=None,
            messages=messages,
            rejected=rejected,
            split="train",
            group="",
            num_frames=0,
        )
        tokens, values = self._stage.tokenize_clip(self._processor, clip, media)
        return num_tokens(len(tokens.input_ids), tokens.num_prompt_tokens, values, self._stage.columns)

    def _count(self, messages: tuple[Message, ...], size: tuple[int, int], indices: Any, fps: float = 1.0) -> int:
        video = _black(size, indices, fps)
        return len(self._stage.tokenize(self._processor, messages, [video]).input_ids)


@dataclass(frozen=True)
class _BlackVideo:
    """Frames as `ivcp.models.processor.SampledVideo` has them."""

    frames: NDArray[np.uint8]
    frame_indices: tuple[int, ...]
    source_fps: float
    total_frames: int
    kind: MediumKind = "video"


def _black_image(size: tuple[int, int]) -> _BlackVideo:
    return _BlackVideo(np.zeros((1, *size, 3), dtype=np.uint8), (0,), 1.0, 1, "image")


def _black(size: tuple[int, int], indices: Any, fps: float = 1.0) -> _BlackVideo:
    frames = np.zeros((len(indices), *size, 3), dtype=np.uint8)
    return _BlackVideo(frames, tuple(indices), fps, indices[-1] + 1)


_latest: tuple[TokenJob, _Counter] | None = None


def _counter(job: TokenJob) -> _Counter:
    """The counter of a job; jobs of one run share it."""
    global _latest
    if _latest is None or (_latest[0].settings, _latest[0].stage) != (job.settings, job.stage):
        _latest = job, _Counter(job.settings, job.stage)
    return _latest[1]
