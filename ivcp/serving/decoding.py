"""From a video file to the model's input, in worker processes that can be killed.

A video that makes a decoder hang or crash costs one request. Decoding, resizing and tokenizing are done there, so that
the process that answers only runs the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import PromptError
from ivcp.models.processor import Processor
from ivcp.models.processor_settings import PRELOAD
from ivcp.records import RUN_CONFIG_FILE, Message
from ivcp.settings import ModelConfig, read_model_config
from ivcp.stages.model_info import read_info
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of
from ivcp.video import ClipFrames, Span, VideoError, load_clips, probe
from ivcp.video.clips import check_duration
from ivcp.video.worker_process import WorkerStartError
from ivcp.video.workers import DEFAULT_MEMORY_GIGABYTES, WorkerPool

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_MOST_MODELS = 8
"""Whose tokenizers and processors a worker keeps."""
_WHOLE = (Span(),)


class DecoderError(RuntimeError):
    """No process starts that could decode: no video's fault."""


class TooManyTokensError(PromptError):
    """A clip with its prompt is longer than what the model was trained with."""


@dataclass(frozen=True)
class ModelFiles:
    """The model directory that a clip is prepared for."""

    model_dir: Path
    trust_remote_code: bool = False
    generation: int = 0
    """Another number for another model in the same place."""


@dataclass(frozen=True)
class ClipRequest:
    """Which clips of which video are wanted, and what is asked about them."""

    files: ModelFiles
    source: Path | tuple[Path, ...]
    """A video file, or frame images in order."""
    name: str
    """What messages call it."""
    messages: tuple[Message, ...] | None = None
    """The conversation; null is the model's own."""
    spans: tuple[Span, ...] = _WHOLE
    images_fps: float | None = None
    """Frames per second of frame images; null is the model's `video_fps`."""
    with_frame_images: bool = False
    max_seconds: float | None = None
    """Of the whole video; null is any."""


@dataclass(frozen=True)
class ReadClip:
    """A clip as the model takes it, and what answers say of it."""

    sample: Sample
    frame_seconds: tuple[float, ...]
    """When the frames that the model sees stand in the video."""
    backend: str
    needed_whole_video: bool
    """Whether all of the video was decoded for it, as another call would do again."""
    frame_images: tuple[bytes, ...] = ()
    """The frames as JPEG files, where they were asked for."""


@dataclass(frozen=True)
class VideoLength:
    """What windows over a video need to know of it."""

    seconds: float
    num_bytes: int


ReadClips = tuple[ReadClip | VideoError, ...]


class Decoders:
    """A pool of processes that read clips for any number of models; may be used from any thread."""

    def __init__(
        self,
        models: Iterable[ModelFiles],
        *,
        num_workers: int | None = None,
        timeout_seconds: float,
        memory_gigabytes: float = DEFAULT_MEMORY_GIGABYTES,
    ) -> None:
        """`models` are loaded by each process before its first clip; others when they are asked for.

        A clip that takes more than `memory_gigabytes` or `timeout_seconds` is refused. `num_workers` null is one for
        each core.
        """
        self.timeout_seconds = timeout_seconds
        self._pool = WorkerPool(
            num_workers,
            preload=(PRELOAD,),
            initializer=_load,
            initargs=tuple(models),
            memory_gigabytes=memory_gigabytes,
            keeps_alive=True,
        )

    @property
    def num_workers(self) -> int:
        """Processes."""
        return self._pool.num_workers

    def start(self) -> list[Future[None]]:
        """Starts all workers, which takes seconds; each future is done when one can decode, or raises why it cannot."""
        return [self._pool.start() for _ in range(self._pool.num_workers)]

    def failure(self) -> str | None:
        """Why no process can decode at the moment; null where one can."""
        failures = self._pool.failures()
        if not failures or any(failure is None for failure in failures):
            return None
        return f"no process that decodes videos can start: {failures[0]}"

    def read(self, request: ClipRequest, *, timeout_seconds: float | None = None) -> Future[ReadClips]:
        """Samples, decodes, resizes and tokenizes clips; one that lies outside the video is a `VideoError` in place.

        The future raises `VideoError` for a video that cannot be used, or not within the limits of time and memory,
        `TooManyTokensError`, and what `reason_of` turns into a `DecoderError`.
        """
        limit = self.timeout_seconds if timeout_seconds is None else min(self.timeout_seconds, timeout_seconds)
        return self._pool.submit(_read, request, timeout_seconds=limit)

    def length(
        self, source: Path | tuple[Path, ...], *, images_fps: float | None = None, max_seconds: float | None = None
    ) -> Future[VideoLength]:
        """How long a video is; the future raises as that of `read` does."""
        return self._pool.submit(_length, (source, images_fps, max_seconds), timeout_seconds=self.timeout_seconds)

    def work(
        self, task: Callable[[ItemT], ResultT], item: ItemT, *, timeout_seconds: float | None = None
    ) -> Future[ResultT]:
        """Calls `task`, a function at the top of a module, with `item` in a worker process.

        The future raises what the task raises, `VideoError` for a call that took too long, crashed or wanted too much
        memory, and what `reason_of` turns into a `DecoderError`.
        """
        return self._pool.submit(task, item, timeout_seconds=timeout_seconds)

    def warm(self, files: ModelFiles) -> Future[None]:
        """Loads a model's processor in one worker, which shows that this can be done."""
        return self._pool.submit(_warm, files, timeout_seconds=None)

    def close(self) -> None:
        """Ends the worker processes."""
        self._pool.close()


def reason_of(error: Exception) -> Exception:
    """What a failed future of `Decoders` is to be raised as: what is no video's fault is a `DecoderError`."""
    if isinstance(error, VideoError | PromptError) or not isinstance(error, WorkerStartError | OSError | ValueError):
        return error
    return DecoderError(f"no process that decodes videos can start: {error}")


@dataclass(frozen=True)
class ModelHere:
    """What a worker process keeps of a model."""

    stage: Stage
    processor: Processor
    prompt: tuple[Message, ...]


@functools.lru_cache(_MOST_MODELS)
def model_here(files: ModelFiles) -> ModelHere:
    """What a worker process needs of a model, which is read once."""
    machine = ModelConfig(trust_remote_code=files.trust_remote_code)
    stage = stage_of(read_model_config(files.model_dir / RUN_CONFIG_FILE, machine=machine))
    processor = Processor.from_pretrained(
        files.model_dir,
        video=stage.config.video,
        special_tokens=stage.special_tokens,
        trust_remote_code=files.trust_remote_code,
    )
    return ModelHere(stage, processor, read_info(files.model_dir).prompt)


def _load(*models: ModelFiles) -> None:
    import torch  # sizes frames

    torch.set_num_threads(1)  # there are as many processes as cores
    for files in models:
        model_here(files)


def _warm(files: ModelFiles) -> None:
    model_here(files)


def _read(request: ClipRequest) -> ReadClips:
    model = model_here(request.files)
    source = request.source if isinstance(request.source, Path) else [str(path) for path in request.source]
    with pictures_by_number(request.source):
        clips = load_clips(
            source,
            request.spans,
            processor=model.processor,
            images_fps=request.images_fps,
            max_seconds=request.max_seconds,
        )
    return tuple(
        clip
        if isinstance(clip, VideoError)
        else read_clip(
            clip,
            request.messages or model.prompt,
            stage=model.stage,
            processor=model.processor,
            prompt=model.prompt,
            name=request.name,
            with_frame_images=request.with_frame_images,
        )
        for clip in clips
    )


@contextmanager
def pictures_by_number(source: Path | tuple[Path, ...]) -> Iterator[None]:
    """Whoever sent pictures is told which one is bad, and nothing of this machine's folders."""
    try:
        yield
    except VideoError as error:
        if isinstance(source, Path) or not source:
            raise
        raise VideoError(error.reason, error.detail.replace(f"{source[0].parent}/", "picture ")) from error


def _length(asked: tuple[Path | tuple[Path, ...], float | None, float | None]) -> VideoLength:
    source, images_fps, max_seconds = asked
    paths = source if isinstance(source, Path) else [str(path) for path in source]
    with pictures_by_number(source):
        info = probe(paths, images_fps=images_fps or 2.0)
    check_duration(info, max_seconds)
    seconds = info.duration_seconds
    if seconds is None:
        seconds = info.num_frames / info.fps if info.fps else 0.0
    return VideoLength(seconds, info.num_bytes)


def read_clip(
    clip: ClipFrames,
    messages: tuple[Message, ...],
    *,
    stage: Stage,
    processor: Processor,
    prompt: tuple[Message, ...],
    name: str,
    with_frame_images: bool = False,
) -> ReadClip:
    """A decoded clip that is asked about with `messages`; `prompt` is the model's own conversation.

    Raises:
        TooManyTokensError: they are longer than `cutoff_len` of the training.
    """
    sample = prepare(clip, messages, stage=stage, processor=processor, name=name)
    longest, tokens = stage.config.data.cutoff_len, len(sample.input_ids)
    if tokens > longest:
        own = len(stage.tokenize(processor, prompt, [clip]).input_ids)
        raise TooManyTokensError(
            f"with it the clip comes to {tokens} tokens, expected at most {longest}, as in training (cutoff_len); "
            f"{own} with the model's own prompt: "
            + ("shorten it" if own <= longest else "send fewer seconds of the video, or smaller frames")
        )
    return ReadClip(
        sample=sample,
        frame_seconds=tuple(round(seconds, 3) for seconds in clip.frame_seconds),
        backend=clip.backend,
        needed_whole_video=clip.video_frames is not None,
        frame_images=_as_jpeg(clip) if with_frame_images else (),
    )


def prepare(
    clip: ClipFrames, messages: tuple[Message, ...], *, stage: Stage, processor: Processor, name: str
) -> Sample:
    """A decoded clip as the model's input: the same tokens and pixels as preparation makes."""
    return Sample(
        **vars(stage.tokenize(processor, messages, [clip])),
        sample_id=name,
        source=name,
        media=(Medium.of(clip),),
        columns={column.name: 0 for column in stage.columns},
    )


def _as_jpeg(clip: ClipFrames) -> tuple[bytes, ...]:
    import simplejpeg

    return tuple(simplejpeg.encode_jpeg(frame, quality=85) for frame in clip.frames)
