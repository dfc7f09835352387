"""A model that is loaded and answers requests, whatever it answers."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ivcp.records import MediumKind
from ivcp.serving.decoding import Decoders, ModelFiles, reason_of
from ivcp.serving.held_files import HeldFiles, ModelChangedError
from ivcp.serving.model_source import ModelSource
from ivcp.serving.settings import ServerSettings
from ivcp.video import VideoError

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
    kind: MediumKind = "video"
    """An image is one file."""


class Served(ABC):
    """A loaded model, the files that it was loaded from, and the decoders that it shares with other models."""

    def __init__(
        self,
        source: ModelSource,
        decoders: Decoders,
        settings: ServerSettings,
        *,
        held: HeldFiles,
        generation: int = 0,
    ) -> None:
        """`source` is loaded, `held` are its files since before that."""
        self.source, self._decoders, self._held = source, decoders, held
        self._max_seconds = settings.max_video_seconds
        self.files: ModelFiles = replace(source.files, model_dir=held.directory, generation=generation)

    @property
    @abstractmethod
    def num_waiting(self) -> int:
        """What is decoded and waits for the model."""

    @property
    def failure(self) -> str | None:
        """Why its answers would not be those of the model that was loaded; null where they are."""
        changed = self._held.changed
        return changed and (
            f"{changed} of {self.source.model_uri} was written over while it was served: start the server again, "
            "and write new models beside those that serve"
        )

    def check_unchanged(self) -> None:
        """Raises:
        ModelChangedError: its weights were written over.
        """
        if failure := self.failure:
            raise ModelChangedError(failure)

    @abstractmethod
    def try_out(self, video: VideoSource) -> None:
        """Answers once about a video in each decoding process; for a thread without an event loop.

        Raises:
            RuntimeError, VideoError: that cannot be done.
        """

    @abstractmethod
    def finish(self) -> None:
        """Answers what was handed in, and ends its thread."""

    def close(self) -> None:
        """Answers what was handed in, and lets go of the model."""
        self.finish()
        # a decoding process that starts reads the first model's before all others
        self._held.release(keep_copies=self.files.generation == 0)


async def done(call: Callable[[], Future[ResultT]]) -> ResultT:
    """What decoders were asked for; asks again where one died, which may have been no fault of the video's."""
    try:
        return await _result(call())
    except VideoError as error:
        if error.reason != "crashed":
            raise
        log.warning("a decoding process died (%s): its clip is decoded again", error.detail)
    return await _result(call())


def waited_for(future: Future[ResultT]) -> ResultT:
    """The same for a thread without an event loop, which asks once."""
    with _explained():
        return future.result()


async def _result(future: Future[ResultT]) -> ResultT:
    with _explained():
        return await asyncio.wrap_future(future)


@contextmanager
def _explained() -> Iterator[None]:
    """Where no decoder can start, that is no video's fault."""
    try:
        yield
    except Exception as error:
        if (reason := reason_of(error)) is error:
            raise
        raise reason from error
