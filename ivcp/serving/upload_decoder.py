"""Decodes uploads in worker processes that can be killed: a video that makes a decoder hang costs one request."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from ivcp.models.processor import Processor
from ivcp.models.processor_settings import PRELOAD
from ivcp.settings import VideoConfig
from ivcp.video import ClipFrames, load_clip
from ivcp.video.worker_process import WorkerStartError
from ivcp.video.workers import DEFAULT_MEMORY_GIGABYTES, WorkerPool

_processor: Processor | None = None
"""In a worker process: how to sample and size frames."""


class DecoderError(RuntimeError):
    """No process starts that could decode: no video's fault."""


class UploadDecoder:
    """A pool of decoding processes for one model directory; `decode` may be called from any thread."""

    def __init__(
        self,
        model_dir: Path,
        *,
        video: VideoConfig,
        special_tokens: tuple[str, ...],
        trust_remote_code: bool = False,
        num_workers: int,
        timeout_seconds: float,
        memory_gigabytes: float = DEFAULT_MEMORY_GIGABYTES,
    ) -> None:
        """An upload that takes more than `memory_gigabytes` or `timeout_seconds` is refused."""
        self._timeout_seconds = timeout_seconds
        self._pool = WorkerPool(
            num_workers,
            preload=(PRELOAD,),
            initializer=_initialize,
            initargs=(model_dir, video, special_tokens, trust_remote_code),
            memory_gigabytes=memory_gigabytes,
        )

    def start(self) -> Future[None]:
        """Starts a worker, which takes seconds; the future is done when it can decode, or raises why it cannot."""
        return self._pool.start()

    def decode(self, video: Path) -> ClipFrames:
        """Samples, decodes and resizes a video file.

        Raises:
            VideoError: it cannot be decoded, or not within the limits of time and memory.
            DecoderError: no worker starts. The next call tries again.
            WorkerStoppedError: the decoder was closed.
        """
        try:
            return self._pool.submit(_decode, video, timeout_seconds=self._timeout_seconds).result()
        except (WorkerStartError, OSError, ValueError) as error:
            raise DecoderError(f"no process that decodes videos can start: {error}") from error

    def close(self) -> None:
        """Ends the worker processes."""
        self._pool.close()


def _initialize(model_dir: Path, video: VideoConfig, special_tokens: tuple[str, ...], trust_remote_code: bool) -> None:
    global _processor
    _processor = Processor.from_pretrained(
        model_dir, video=video, special_tokens=special_tokens, trust_remote_code=trust_remote_code
    )


def _decode(video: Path) -> ClipFrames:
    assert _processor is not None
    return load_clip(video, processor=_processor)
