"""When the frames of a video are shown, as the catalog keeps it: few numbers, unless they are shown unequally long."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ivcp.video.sampling import Timeline

COLUMNS = "video.num_frames, video.fps, video.first, video.last, video.uneven"
"""Of the catalog's table of videos: what `StoredTimes` is made of."""
_DIGITS = 4
"""Of seconds: videos with the same times share what depends on them."""


class StoredTimes(NamedTuple):
    """A `Timeline` in few bytes."""

    num_frames: int
    fps: float
    first: float
    """When the first frame is shown, in seconds."""
    last: float
    uneven: bytes
    """When each frame is shown, as float32 seconds after the first; empty where they are shown equally long."""

    @classmethod
    def of(cls, timeline: Timeline) -> StoredTimes:
        """The times of a video's frames."""
        seconds = timeline.seconds
        uneven = b"" if timeline.is_even else (seconds - seconds[0]).astype(np.float32).tobytes()
        first, last = (round(float(second), _DIGITS) for second in (seconds[0], seconds[-1]))
        return cls(len(seconds), timeline.fps, first, last, uneven)

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown."""
        if self.uneven:
            return Timeline(self.first + np.frombuffer(self.uneven, dtype=np.float32).astype(np.float64), self.fps)
        return Timeline(np.linspace(self.first, self.last, self.num_frames), self.fps)
