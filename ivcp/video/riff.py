"""WAV files: whether all samples are there that the header states, which FFmpeg does not tell."""

from __future__ import annotations

import struct
from pathlib import Path

_CHUNK = struct.Struct("<4sI")
_UNKNOWN = 0xFFFF0000
"""Sizes from here on are of who wrote while it recorded, and did not know."""


def bytes_lacking(path: Path) -> int:
    """How many bytes the samples of a WAV file should have and do not; 0 of any other file."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(_CHUNK.size)) == _CHUNK.size:
            name, size = _CHUNK.unpack(chunk)
            if name == b"data":
                return 0 if size >= _UNKNOWN else max(0, file.tell() + size - num_bytes)
            file.seek(size + size % 2, 1)
    return 0
