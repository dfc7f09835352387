"""Whether a file ends before its video does: it was cut off, or is still being written.

What counts is what the file presents: frames that an edit list hides may be missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from ivcp.video.mp4_boxes import last_box
from ivcp.video.sampling import Timeline

_MIN_COVERED = 0.75
"""Share of a stated duration that frames must cover in formats that say no more. Sound may be longer."""
_STATES_DURATION = frozenset({"flv", "live_flv", "asf", "rm", "nut"})
_SEGMENT = b"\x18\x53\x80\x67"
_EBML = b"\x1a\x45\xdf\xa3"


def why_incomplete(path: Path, container: Any, stream: Any, timeline: Timeline) -> str | None:
    """What is missing of a video that was read to its end, and whose frames are shown as `timeline` says; or null."""
    names = set(container.format.name.split(","))
    if "mp4" in names:
        return _of_mp4(path, stream)
    if "matroska" in names:
        return _of_matroska(path, container, timeline)
    if "avi" in names:
        return _of_avi(path, stream, timeline)
    duration = (container.duration or 0) / av.time_base
    if names & _STATES_DURATION and timeline.end_seconds < _MIN_COVERED * duration:
        return f"frames end at {timeline.end_seconds:.1f} s of the stated {duration:.1f} s"
    return None


def _of_mp4(path: Path, stream: Any) -> str | None:
    num_bytes = path.stat().st_size
    shown = [entry for entry in stream.index_entries if not entry.is_discard]
    missing = sum(entry.pos + entry.size > num_bytes for entry in shown)
    if missing:
        return f"{missing} of {len(shown)} frames lie behind the end of the file"
    kind, end = last_box(path)
    if kind == b"moof" and end > num_bytes:  # a fragment of which not even the index is whole
        return f"its last fragment lacks {end - num_bytes} bytes"
    return None


def _of_matroska(path: Path, container: Any, timeline: Timeline) -> str | None:
    lacking = _matroska_end(path) - path.stat().st_size
    if lacking <= 0:
        return None
    duration = (container.duration or 0) / av.time_base
    if duration and timeline.end_seconds > duration - 1 / timeline.fps:  # only what comes behind the frames is missing
        return None
    return f"the file lacks {lacking} bytes: frames end at {timeline.end_seconds:.1f} s" + (
        f" of {duration:.1f} s" if duration else ""
    )


def _matroska_end(path: Path) -> int:
    """Where the first segment ends, in bytes; 0 where the file does not say."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(_EBML):
        return 0
    length, size = _read_size(head, len(_EBML))
    at = len(_EBML) + length + (size or 0)
    if head[at : at + len(_SEGMENT)] != _SEGMENT:
        return 0
    length, size = _read_size(head, at + len(_SEGMENT))
    return 0 if size is None else at + len(_SEGMENT) + length + size


def _read_size(data: bytes, at: int) -> tuple[int, int | None]:
    """Bytes of an EBML size that stands `at`, and the size; null where it is unknown (all bits set)."""
    if at >= len(data) or not data[at]:
        return 1, None
    length = 9 - data[at].bit_length()
    bits = 7 * length
    value = int.from_bytes(data[at : at + length], "big") & ((1 << bits) - 1)
    return length, None if value == (1 << bits) - 1 else value


def _of_avi(path: Path, stream: Any, timeline: Timeline) -> str | None:
    """A frame that is shown again is counted and has no bytes: fewer frames alone do not mean that some are missing."""
    with path.open("rb") as file:
        head = file.read(8)
    lacking = 8 + int.from_bytes(head[4:8], "little") - path.stat().st_size
    if lacking <= 0 or len(timeline.seconds) >= stream.frames:
        return None
    return (
        f"the file lacks {lacking} bytes: {len(timeline.seconds)} frames of the {stream.frames} that its header states"
    )
