"""Which file formats are opened as videos, and why another one is not.

Only the file itself is ever opened: formats that name other files (playlists, scripts) are refused whatever the name's
ending, and no protocol but a plain file is followed.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import av

_VIDEOS = (
    *(
        "mov",
        "matroska",
        "avi",
        "mpegts",
        "mpeg",
        "flv",
        "live_flv",
        "asf",
        "ogg",
        "rm",
        "nut",
        "wtv",
        "dv",
        "mxf",
        "gxf",
    ),
    *(
        "nsv",
        "ivf",
        "obu",
        "h264",
        "hevc",
        "vvc",
        "av1",
        "m4v",
        "mpegvideo",
        "h261",
        "h263",
        "vc1",
        "cavsvideo",
        "dirac",
    ),
    *("mjpeg", "gif", "apng", "yuv4mpegpipe", "swf", "avs", "amv", "pva", "dhav", "mtv", "bink", "smk", "roq", "flic"),
)
_SOUNDS = ("mp3", "wav", "flac", "aac", "ac3", "amr", "aiff", "caf", "w64", "ape", "wv")
"""They are opened to say that there is no video in them."""
OPEN_OPTIONS = {"format_whitelist": ",".join((*_VIDEOS, *_SOUNDS)), "protocol_whitelist": "file"}
"""For `av.open`. FFmpeg compares the names of its demuxers."""

_LISTS = {b"#EXTM3U": "playlist (HLS)", b"ffconcat version": "script (ffconcat)", b"<MPD": "playlist (DASH)"}
_NAME_OTHERS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf", "smil", "webm_dash_manifest", "ffmetadata"})
_TEXTS = frozenset({"tty", "bin", "xbin", "adf", "idf", "srt", "ass", "webvtt", "microdvd", "subviewer", "sami", "lrc"})
_STILL_BRANDS = {"avif": "AVIF", "heic": "HEIC", "heix": "HEIC", "mif1": "HEIF", "heim": "HEIC", "heis": "HEIC"}
"""Pictures that come as MP4 files, by their major brand."""
_OF_PICTURES = "a clip is a video file, or a list of the paths of its frame images"


def why_refused(error: av.FFmpegError) -> str | None:
    """What a file is whose format is not opened; null for an error of another kind."""
    if not error.log or not error.log[2].startswith("Format not on whitelist"):
        return None
    name = error.log[1]
    if name in _NAME_OTHERS:
        return f"it is a playlist or script ({name}) that names other files, which are not opened: name the videos"
    if "webp" in name:
        return f"it is a WebP picture: convert an animation to MP4; {_OF_PICTURES}"
    if name.endswith("_pipe") or name in ("image2", "ico"):
        return f"it is a picture ({name.removesuffix('_pipe')}): {_OF_PICTURES}"
    if name in _TEXTS:
        return f"it is a text file ({name})"
    return f"FFmpeg takes it for the format {name}, which is not read: convert it to MP4"


def why_a_list(path: Path) -> str | None:
    """What a text is that names other files; null for anything else.

    FFmpeg knows a playlist by its ending, and takes one of another name for a damaged video.
    """
    with path.open("rb") as file:
        head = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    kind = next((kind for mark, kind in _LISTS.items() if head.startswith(mark)), None)
    return None if kind is None else f"it is a {kind}, which names other files: these are not opened, name the videos"


def why_still(container: Any) -> str | None:
    """Why an open container holds a picture and not a video; null for a video."""
    brand = _STILL_BRANDS.get(container.metadata.get("major_brand", "").strip())
    return None if brand is None else f"it is a picture ({brand}): {_OF_PICTURES}"


def best_stream(container: Any) -> Any:
    """The video stream that is read: the one that FFmpeg's `av_find_best_stream` picks, but never a cover picture.

    Null where there is none.
    """
    best = container.streams.best("video")
    if best is None or not _is_cover(best):
        return best
    return next((stream for stream in container.streams.video if not _is_cover(stream)), None)


def name_kind(stream: Any) -> str:
    """What a stream holds."""
    return "a cover picture" if stream.type == "video" and _is_cover(stream) else str(stream.type)


def name_codec(container: Any, stream: Any) -> str:
    """The four letters that stand in the file for a codec which FFmpeg does not know."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # what `dumps_format` gives is a log message
    try:
        described = container.dumps_format()
    finally:
        av.logging.set_level(level)
    line = next((line for line in described.splitlines() if f"Stream #0:{stream.index}" in line), "")
    return line.partition(" / 0x")[0].rpartition("(")[2] or "unknown"


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
