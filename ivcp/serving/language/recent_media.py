"""The media of recent conversations as the model sees them: a further turn about a video does not decode it again.

Clients of OpenAI's API send a whole conversation with each turn, and every video in it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from ivcp.data.prepared.sample import Medium
from ivcp.serving.served import VideoSource


class RecentMedia:
    """Decoded media by the content of their files; those unused longest make room for others."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is for their frames and sounds; 0 keeps none."""
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._media: OrderedDict[str, Medium] = OrderedDict()

    @property
    def keeps_some(self) -> bool:
        """Whether there is room for any."""
        return self._max_bytes > 0

    @property
    def num_bytes(self) -> int:
        """Taken by frames and sounds."""
        return self._num_bytes

    def get(self, key: str) -> Medium | None:
        """A medium that is kept; null of one that is not."""
        if key in self._media:
            self._media.move_to_end(key)
        return self._media.get(key)

    def put(self, key: str, medium: Medium) -> None:
        """Keeps a medium, unless it is larger than all the room."""
        if key in self._media or _num_bytes(medium) > self._max_bytes:
            return
        self._media[key] = medium
        self._num_bytes += _num_bytes(medium)
        while self._num_bytes > self._max_bytes:
            _, oldest = self._media.popitem(last=False)
            self._num_bytes -= _num_bytes(oldest)


def _num_bytes(medium: Medium) -> int:
    return medium.frames.nbytes + (0 if medium.waveform is None else medium.waveform.nbytes)


def key_of(source: VideoSource) -> str:
    """What a medium of one model depends on: the content of its files, and how they are read."""
    paths = (source.path,) if isinstance(source.path, Path) else source.path
    digest = hashlib.sha256(f"{source.kind} {source.images_fps} {len(paths)}".encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
