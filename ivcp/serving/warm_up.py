"""The first clip is slow: libraries load and kernels are chosen. So the first one is the server's own."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import av
import numpy as np

from ivcp.serving.served import Served, VideoSource
from ivcp.serving.uploads import UploadFolder

log = logging.getLogger(__name__)

_SIZE, _FRAMES, _FPS = 128, 32, 16


def warm_up(model: Served, uploads: UploadFolder) -> None:
    """Lets a model answer for a grey clip of two seconds, in each decoding process.

    Raises:
        RuntimeError: the model or the decoders cannot.
    """
    started = time.monotonic()
    with uploads.folder() as folder:
        video = VideoSource(_write_clip(folder / "warm_up.avi"), "the server's own clip")
        model.try_out(video)
    log.info("%s answered its first clip after %.1f s", model.source.name, time.monotonic() - started)


def _write_clip(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=_FPS)
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(_FRAMES):
            picture = np.full((_SIZE, _SIZE, 3), 96 + number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
