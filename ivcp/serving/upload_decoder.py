"""Decodes uploads in worker processes that can be killed: a video that makes a decoder hang costs one request."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from ivcp.models.processor import ClipProcessor
from ivcp.settings import VideoConfig
from ivcp.video import ClipFrames, VideoError, load_clip
from ivcp.video.workers import DEFAULT_MEMORY_GIGABYTES, limit_memory

_processor: ClipProcessor | None = None
"""In a worker process: how to sample and size frames."""


class UploadDecoder:
    """A pool of decoding processes for one model directory; `decode` may be called from any thread."""

    def __init__(
        self,
        model_dir: Path,
        *,
        video: VideoConfig,
        action_token: str,
        num_workers: int,
        timeout_seconds: float,
        memory_gigabytes: float = DEFAULT_MEMORY_GIGABYTES,
    ) -> None:
        """An upload that takes more than `memory_gigabytes` or `timeout_seconds` is refused."""
        self._timeout_seconds = timeout_seconds
        # Not fork: torch and the server have threads here, whose locks a fork would copy.
        self._pool = ProcessPool(
            num_workers,
            initializer=_initialize,
            initargs=[model_dir, video, action_token, memory_gigabytes],
            context=multiprocessing.get_context("spawn"),
        )

    def start(self) -> Future[bool]:
        """Starts a worker, which takes seconds; the result is there when it can decode."""
        started: Future[bool] = self._pool.schedule(_is_initialized)
        return started

    def decode(self, video: Path) -> ClipFrames:
        """Samples, decodes and resizes a video file.

        Raises:
            VideoError: it cannot be decoded, or not within the limits of time and memory.
        """
        task: Callable[[Path], ClipFrames] = _decode
        try:
            clip: ClipFrames = self._pool.schedule(task, args=[video], timeout=self._timeout_seconds).result()
        except TimeoutError as error:
            raise VideoError("timeout", f"decoding took more than {self._timeout_seconds:g} s") from error
        except ProcessExpired as error:
            raise VideoError("crashed", "the decoder crashed on this video") from error
        return clip

    def close(self) -> None:
        """Ends the worker processes."""
        self._pool.stop()
        self._pool.join()


def _initialize(model_dir: Path, video: VideoConfig, action_token: str, memory_gigabytes: float) -> None:
    global _processor
    _processor = ClipProcessor.from_pretrained(model_dir, video=video, action_token=action_token)
    limit_memory(memory_gigabytes)


def _is_initialized() -> bool:
    return _processor is not None


def _decode(video: Path) -> ClipFrames:
    assert _processor is not None
    return load_clip(video, processor=_processor)
