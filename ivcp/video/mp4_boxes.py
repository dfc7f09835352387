"""What an MP4 file's boxes say that FFmpeg does not: whether it is encrypted, or lacks its index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip")


def is_encrypted(path: Path) -> bool:
    """Whether a video stream is encrypted (CENC): FFmpeg decodes such samples to rubbish without a word."""
    moov = next((box for box in _boxes(path) if box[0] == b"moov"), None)
    if moov is None:
        return False
    with path.open("rb") as file:
        file.seek(moov[1])
        content = file.read(moov[2])
    return b"encv" in content and b"sinf" in content


def lacks_index(path: Path) -> bool:
    """Whether it starts as an MP4 file and has no whole `moov` box: it was cut off, or is still being written."""
    boxes = list(_boxes(path))
    whole = any(kind == b"moov" and offset + size <= path.stat().st_size for kind, offset, size in boxes)
    return bool(boxes) and boxes[0][0] == b"ftyp" and not whole


def last_box(path: Path) -> tuple[bytes, int]:
    """The kind of the last box, and where it ends by its own account, in bytes; no kind where there is no box."""
    last = b"", 0
    for kind, offset, size in _boxes(path):
        last = kind, offset + size
    return last


def _boxes(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and number of bytes of the boxes at the top; nothing for a file that is no MP4."""
    end, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset + 8 <= end:
            file.seek(offset)
            header = file.read(16)
            kind, size = header[4:8], int.from_bytes(header[:4], "big")
            if offset == 0 and kind not in _FIRST_BOXES:
                return
            size = int.from_bytes(header[8:16], "big") if size == 1 else size or end - offset
            if size < 8:
                return
            yield kind, offset, size
            offset += size
