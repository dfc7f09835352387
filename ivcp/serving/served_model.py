"""One loaded model with its queue: what a request's clips are answered by."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future

from ivcp.data.prepared.sample import Sample
from ivcp.records.answers import Answer
from ivcp.serving.batching import Batcher, Computed
from ivcp.serving.decoding import ClipRequest, Decoders, ReadClip, VideoLength
from ivcp.serving.held_files import HeldFiles
from ivcp.serving.http.timings import Timings
from ivcp.serving.predictor import Predictor
from ivcp.serving.served import Served, VideoSource, done, waited_for
from ivcp.serving.settings import ServerSettings
from ivcp.video import Span, VideoError


class ServedModel(Served):
    """A predictor with its batches."""

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
        super().__init__(predictor, decoders, settings, held=held, generation=generation)
        self.predictor = predictor
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
            (clip,) = waited_for(future)
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
            return await done(lambda: self._decoders.read(request, timeout_seconds=timings.left_seconds()))

    async def length(self, video: VideoSource) -> VideoLength:
        """How long the video is; raises as `classify` does."""
        return await done(
            lambda: self._decoders.length(video.path, images_fps=video.images_fps, max_seconds=self._max_seconds)
        )

    async def compute(self, sample: Sample, timings: Timings) -> Computed:
        """The model's logits for a clip."""
        return await self._computed(self._batcher.submit(sample), timings)

    async def _computed(self, future: Future[Computed], timings: Timings) -> Computed:
        computed = await asyncio.wrap_future(future)
        self.check_unchanged()
        timings.add("queue", computed.queue_seconds)
        timings.add("model", computed.model_seconds)
        timings.batch_sizes.append(computed.batch_size)
        return computed

    def finish(self) -> None:
        """Answers what was handed in, and ends its thread."""
        self._batcher.close()
