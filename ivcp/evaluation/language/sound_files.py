"""Sounds as files that a page plays."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
from numpy.typing import NDArray

_SECONDS_PLAYED = 30
_LARGEST = 32767
"""Of 16-bit samples."""


def sound_file(waveform: NDArray[np.float32], *, rate: int) -> str:
    """The first half minute of a sound of `rate` samples a second, as a data: URI of a WAV file."""
    samples = (waveform[: _SECONDS_PLAYED * rate].clip(-1, 1) * _LARGEST).round().astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(samples.tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
