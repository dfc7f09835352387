"""What a worker process of the validation step does to count tokens, with the model's own processor.

The module itself is light: only the worker imports torch and transformers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.encoding import num_tokens
from ivcp.data.prompts import TAGS, VIDEO_TAG, media_tags
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
_SHORT = 8000
"""Samples of a sound where its length does not matter."""
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
    """What the tokens of a video, an image or a sound depend on."""

    kind: MediumKind
    height: int
    """Pixels of the source, as displayed."""
    width: int
    num_sampled: int
    """Frames that are looked at, or samples of a sound."""


@dataclass(frozen=True)
class Times:
    """When the frames of a clip's video were taken: what time stamps in a prompt depend on, and
    what is heard with them."""

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
    """Whether the model writes time stamps of several lengths into its prompt, or hears videos: else times add
    nothing."""
    longest_sound: float | None
    """Seconds of sound that the model hears of one file; null is any."""


def count_tokens(job: TokenJob) -> TokenCounts:
    """Counts by calling the processor on black frames: exact for every model, and nothing is decoded.

    Video tokens are special tokens, so that text and video add up: each conversation is counted with small clips,
    and each shape and each time with one conversation.

    Raises:
        OSError, ValueError: there is no such base model, or its tokenizer splits the action token.
    """
    counter = _counter(job)
    sizes = tuple(counter.frame_size(item) for item in job.items if isinstance(item, Shape))
    counts = tuple(map(counter.count, job.items))
    return TokenCounts(counts, sizes, counter.depends_on_times, counter.longest_sound)


class _Counter:
    def __init__(self, settings: ProcessorSettings, stage: Stage) -> None:
        self._processor, self._settings, self._stage = load_processor(settings), settings, stage
        self.longest_sound = self._processor.longest_sound
        self._plain = stage.smallest_prompt
        self._prompt = functools.lru_cache(maxsize=4096)(self._count_said)
        self._sound = functools.lru_cache(maxsize=4096)(lambda length: self._count_one(_silence(length)))

    def count(self, item: Said | Shape | Times) -> int:
        if isinstance(item, Shape):
            return self._of_shape(item)
        return self._stamps(item) if isinstance(item, Times) else self._conversation(item)

    @functools.cached_property
    def depends_on_times(self) -> bool:
        """Also where the model sees no videos: it is not asked then."""
        if not self._processor.sees_videos:
            return False
        late = self._count_one(self._video(self._small, range(_LATE, _LATE + _FEW)))
        return self._settings.video.use_audio_in_video or self._few != late

    def frame_size(self, shape: Shape) -> tuple[int, int]:
        if shape.kind == "audio":
            return 0, 0
        sizes = self._processor.frame_size if shape.kind == "video" else self._processor.image_size
        return sizes(shape.height, shape.width)

    @functools.cached_property
    def _small(self) -> tuple[int, int]:
        return self._processor.frame_size(*_SMALL)

    @functools.cached_property
    def _few(self) -> int:
        return self._count_one(self._small_one("video"))

    def _of_shape(self, shape: Shape) -> int:
        if shape.kind == "audio":
            return self._sound(shape.num_sampled) - self._sound(_SHORT)
        size = self.frame_size(shape)
        if shape.kind == "video":
            return self._count_one(self._video(size, range(shape.num_sampled))) - self._few
        return self._count_one(_black_image(size)) - self._count_one(self._small_one("image"))

    def _small_one(self, kind: MediumKind) -> _Black:
        """A medium where its size does not matter."""
        if kind == "audio":
            return _silence(_SHORT)
        if kind == "image":
            return _black_image(self._processor.image_size(*_SMALL))
        return self._video(self._small, range(_FEW))

    def _video(self, size: tuple[int, int], indices: Any, fps: float = 1.0, heard: int = _SHORT) -> _Black:
        """A black video, with so many samples of silence where videos are heard."""
        black = _black(size, indices, fps)
        return replace(black, waveform=_silence(heard).waveform) if self._settings.video.use_audio_in_video else black

    def _count_one(self, medium: _Black) -> int:
        """Tokens of a conversation with one medium."""
        asked = [
            each.model_copy(update={"content": each.content.replace(VIDEO_TAG, TAGS[medium.kind])})
            for each in self._plain
        ]
        return len(self._stage.tokenize(self._processor, asked, [medium]).input_ids)

    def _conversation(self, said: Said) -> int:
        messages = read_conversation(said.text)
        kept = messages if self._stage.reads_answers else self._stage.prompt_of(messages)
        return self._prompt(kept, said.rejected)

    def _stamps(self, times: Times) -> int:
        span, video = Span(times.start_seconds, times.end_seconds), self._settings.video
        chosen = choose_frames(times.video.timeline, span, video)
        start, end = chosen.span_seconds
        heard = round(min(end - start, self.longest_sound or end) * video.audio_sampling_rate)
        stamped = self._video(self._small, chosen.frame_indices, times.video.fps, heard)
        plain = self._video(self._small, range(len(chosen.frame_indices)))
        return self._count_one(stamped) - self._count_one(plain)

    def _count_said(self, messages: tuple[Message, ...], rejected: str | None) -> int:
        """With a small medium for each of its tags."""
        media = [self._small_one(kind) for message in messages for kind in media_tags(message.content)]
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


@dataclass(frozen=True)
class _Black:
    """Frames and sounds as `ivcp.models.processor.SampledVideo` has them."""

    frames: NDArray[np.uint8]
    frame_indices: tuple[int, ...]
    source_fps: float
    total_frames: int
    kind: MediumKind = "video"
    waveform: NDArray[np.float32] | None = None

    @property
    def seconds_per_frame(self) -> float:
        """As of real ones."""
        span = self.frame_indices[-1] - self.frame_indices[0] if self.frame_indices else 0
        return span / max(1, len(self.frame_indices) - 1) / self.source_fps


def _silence(length: int) -> _Black:
    return _Black(np.zeros((0, 0, 0, 3), np.uint8), (), 1.0, length, "audio", np.zeros(length, dtype=np.float32))


def _black_image(size: tuple[int, int]) -> _Black:
    return _Black(np.zeros((1, *size, 3), dtype=np.uint8), (0,), 1.0, 1, "image")


def _black(size: tuple[int, int], indices: Any, fps: float = 1.0) -> _Black:
    frames = np.zeros((len(indices), *size, 3), dtype=np.uint8)
    return _Black(frames, tuple(indices), fps, indices[-1] + 1)


_latest: tuple[TokenJob, _Counter] | None = None


def _counter(job: TokenJob) -> _Counter:
    """The counter of a job; jobs of one run share it."""
    global _latest
    if _latest is None or (_latest[0].settings, _latest[0].stage) != (job.settings, job.stage):
        _latest = job, _Counter(job.settings, job.stage)
    return _latest[1]
