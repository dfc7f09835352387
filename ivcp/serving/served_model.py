"""One loaded model with its queue: what a request's clips are answered by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ivcp.data.prepared.sample import Sample
from ivcp.records.answers import Answer
from ivcp.serving.batching import Batcher, Computed
from ivcp.serving.decoding import ClipRequest, Decoders, ModelFiles, ReadClip, VideoLength, reason_of
from ivcp.serving.held_files import HeldFiles, ModelChangedError
from ivcp.serving.http.timings import Timings
from ivcp.serving.predictor import Predictor
from ivcp.serving.settings import ServerSettings
from ivcp.video import Span, VideoError

ResultT = TypeVar("ResultT")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoSource:
    """A video that came with a request, as files on this machine."""

    path: Path | tuple[Path, ...]
    """A video file, or frame images in order."""
    name: str
    """What messages call it; nothing of the sender's, since it goes into logs."""
    images_fps: float | None = None


class ServedModel:
    """A predictor, its batches, and the decoders that it shares with other models."""

    def __init__(
        self,
        predictor: Predictor,
        decoders: Decoders,
        settings: ServerSettings,
        *,
        held: HeldFiles,
        generation: int = 0,
    ) -> None:
        """`predictor` is loaded, `held` are its files since before that."""
        self.predictor, self._decoders, self._held = predictor, decoders, held
        self._max_seconds = settings.max_video_seconds
        self.files: ModelFiles = replace(predictor.files, model_dir=held.directory, generation=generation)
        self._batcher = Batcher(
            predictor.logits,
            max_tokens=settings.max_batch_tokens,
            max_wait_seconds=settings.max_batch_wait_ms / 1000,
            name=predictor.name,
        )

    @property
    def num_waiting(self) -> int:
        """Clips that are decoded and wait for a batch."""
        return self._batcher.num_waiting

    @property
    def failure(self) -> str | None:
        """Why its answers would not be those of the model that was loaded; null where they are."""
        changed = self._held.changed
        return changed and (
            f"{changed} of {self.predictor.model_uri} was written over while it was served: start the server again, "
            "and write new models beside those that serve"
        )

    async def classify(
        self,
        video: VideoSource,
        *,
        prompt: str | None,
        span: Span,
        top_k: int,
        with_frame_images: bool = False,
        timings: Timings,
    ) -> Answer:
        """The answer for one clip.

        Raises:
            PromptError: the prompt does not fit.
            VideoError: the video cannot be used.
            DecoderError: no process starts that could decode it.
            NonFiniteError: the model's logits are not finite.
            ModelChangedError: its weights were written over.
        """
        started = time.monotonic()
        request = self.request(video, prompt=prompt, spans=(span,), with_frame_images=with_frame_images)
        with self._batcher.coming() as arrived:
            (clip,) = await self.read(request, timings)
            if isinstance(clip, VideoError):
                raise clip
            timings.tokens += len(clip.sample.input_ids)
            future = arrived(clip.sample)
        computed = await self._computed(future, timings)
        return self.predictor.answer(computed.logits, clip, top_k=top_k, seconds=time.monotonic() - started)

    def try_out(self, video: VideoSource) -> None:
        """Classifies a video once in each decoding process; for a thread without an event loop.

        Raises:
            RuntimeError, VideoError: that cannot be done.
        """
        request = self.request(video, prompt=None, spans=(Span(),))
        for future in [self._decoders.read(request) for _ in range(self._decoders.num_workers)]:
            try:
                (clip,) = future.result()
            except Exception as error:
                raise reason_of(error) from error
            if isinstance(clip, VideoError):
                raise clip
            computed = self._batcher.submit(clip.sample).result()
            self.predictor.answer(computed.logits, clip, top_k=1, seconds=0.0)

    def request(
        self, video: VideoSource, *, prompt: str | None, spans: tuple[Span, ...], with_frame_images: bool = False
    ) -> ClipRequest:
        """What decoders are asked for.

        Raises:
            PromptError: the prompt does not fit.
        """
        messages = self.predictor.messages(prompt) if prompt is not None else None
        return ClipRequest(
            files=self.files,
            source=video.path,
            name=video.name,
            messages=messages,
            spans=spans,
            images_fps=video.images_fps,
            with_frame_images=with_frame_images,
            max_seconds=self._max_seconds,
        )

    async def read(self, request: ClipRequest, timings: Timings) -> tuple[ReadClip | VideoError, ...]:
        """Decodes; raises as `classify` does."""
        with timings.of("decode"):
            return await _done(lambda: self._decoders.read(request, timeout_seconds=timings.left_seconds()))

    async def length(self, video: VideoSource) -> VideoLength:
        """How long the video is; raises as `classify` does."""
        return await _done(
            lambda: self._decoders.length(video.path, images_fps=video.images_fps, max_seconds=self._max_seconds)
        )

    async def compute(self, sample: Sample, timings: Timings) -> Computed:
        """The model's logits for a clip."""
        return await self._computed(self._batcher.submit(sample), timings)

    async def _computed(self, future: Future[Computed], timings: Timings) -> Computed:
        computed = await asyncio.wrap_future(future)
        if failure := self.failure:
            raise ModelChangedError(failure)
        timings.add("queue", computed.queue_seconds)
        timings.add("model", computed.model_seconds)
        timings.batch_sizes.append(computed.batch_size)
        return computed

    def close(self) -> None:
        """Answers what was handed in, and ends its thread."""
        self._batcher.close()
        # a decoding process that starts reads the first model's before all others
        self._held.release(keep_copies=self.files.generation == 0)


async def _done(call: Callable[[], Future[ResultT]]) -> ResultT:
    """What decoders were asked for; asks again where one died, which may have been no fault of the video's."""
    try:
        return await _result(call())
    except VideoError as error:
        if error.reason != "crashed":
            raise
        log.warning("a decoding process died (%s): its clip is decoded again", error.detail)
    return await _result(call())


async def _result(future: Future[ResultT]) -> ResultT:
    try:
        return await asyncio.wrap_future(future)
    except Exception as error:
        if (reason := reason_of(error)) is error:
            raise
        raise reason from error
